package kvkey_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/kvkey"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestTheScopeOfAKeyStandsInFrontOfIt(t *testing.T) {
	for key, want := range map[string]struct {
		bare  string
		scope registryv1.Scope
	}{
		"global/x":       {"x", registryv1.Scope_SCOPE_GLOBAL},
		"local/x":        {"x", registryv1.Scope_SCOPE_LOCAL},
		"x":              {"x", registryv1.Scope_SCOPE_UNSPECIFIED},
		"global":         {"global", registryv1.Scope_SCOPE_UNSPECIFIED},
		"a/global/x":     {"a/global/x", registryv1.Scope_SCOPE_UNSPECIFIED},
		"local/global/x": {"global/x", registryv1.Scope_SCOPE_LOCAL},
	} {
		bare, scope := kvkey.Split(key)
		require.Equal(t, want.bare, bare, key)
		require.Equal(t, want.scope, scope, key)
		if scope != registryv1.Scope_SCOPE_UNSPECIFIED {
			require.Equal(t, key, kvkey.Join(bare, scope))
		}
	}
	require.Equal(t, "local/x", kvkey.Join("x", registryv1.Scope_SCOPE_UNSPECIFIED))
}
