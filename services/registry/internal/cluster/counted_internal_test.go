package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestAFounderIsCountedAsSoonAsTheClusterIsFounded(t *testing.T) {
	for name, c := range map[string]struct {
		answer *registryv1.GreetResponse
		want   bool
	}{
		"silent":             {nil, false},
		"fresh":              {&registryv1.GreetResponse{Fresh: true}, false},
		"has just founded":   {&registryv1.GreetResponse{}, true},
		"counts this server": {&registryv1.GreetResponse{Members: []string{"s1", "s2"}}, true},
		"counts others":      {&registryv1.GreetResponse{Members: []string{"s1", "s3"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, counted("s2", map[string]*registryv1.GreetResponse{"address": c.answer}))
		})
	}
}
