package kv

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
