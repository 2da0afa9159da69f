package catalog

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// FuzzHead reads what protobuf's own decoder reads.
func FuzzHead(f *testing.F) {
	seed, err := record.Encode(&registryv1.Service{
		Id: "web-1", Name: "web", Node: "n1", Address: "10.0.0.1", Port: 80, Tags: []string{"a"}, Meta: map[string]string{"k": "v"},
		Weights: &registryv1.Weights{Passing: 1}, RegisteredBy: "ann",
	})
	require.NoError(f, err)
	f.Add(seed)
	f.Add(append(seed, seed...))
	f.Add([]byte{0xff})
	fields := newHeadFields()
	f.Fuzz(func(t *testing.T, raw []byte) {
		want := &registryv1.Service{}
		if proto.Unmarshal(raw, want) != nil {
			return
		}
		h, err := fields.read(raw)
		require.NoError(t, err)
		require.Equal(t, want.GetName(), string(h.name))
		require.Equal(t, want.GetNode(), string(h.node))
		require.Equal(t, want.GetAddress(), string(h.address))
		require.Equal(t, want.GetRegisteredBy(), string(h.owner))
		require.Equal(t, want.GetPort(), h.port)
	})
}
