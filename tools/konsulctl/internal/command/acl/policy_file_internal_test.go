package acl

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
)

func FuzzParsePolicyFile(f *testing.F) {
	for _, seed := range []string{
		"", "rules: [{resource: kv, prefix: a/, access: read}]", `{"rules": [{"access": ["read"]}]}`, `key_prefix "a" { policy = "read" }`,
		"rules: &a [*a]", "a: &b {c: *b}", "---\n---", "rules: [[]]", "name: {}", "\xff", "? []: 1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := parsePolicyFile(text)
		if err == nil {
			return
		}
		refused, ok := fault.As(err)
		require.True(t, ok)
		require.Equal(t, fault.InvalidArgument, refused.Code())
		require.NotEmpty(t, refused.Field())
		require.NotEmpty(t, refused.Remedy())
	})
}
