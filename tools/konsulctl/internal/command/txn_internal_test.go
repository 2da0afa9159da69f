package command

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
)

func FuzzParseCompare(f *testing.F) {
	for _, seed := range []string{"a exists", "a absent", "a version = 3", "a value != x y", "a index < 18446744073709551616", " ", "a  created >  1", `"a b" exists`, `"a \\\" b" version > 3`, "a b exists", `"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCompare(text)
		if err != nil {
			require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
			return
		}
		if !strings.HasPrefix(strings.TrimLeft(text, " "), `"`) {
			require.NotEmpty(t, c.GetKey())
		}
		require.NotNil(t, c.GetWith())
	})
}

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
