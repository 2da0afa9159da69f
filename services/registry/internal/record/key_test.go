package record_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

const (
	unspecified = registryv1.Scope_SCOPE_UNSPECIFIED
	local       = registryv1.Scope_SCOPE_LOCAL
	global      = registryv1.Scope_SCOPE_GLOBAL
)

func TestParseKeyResolvesScope(t *testing.T) {
	for name, c := range map[string]struct {
		key       string
		scope     registryv1.Scope
		bare      string
		want      registryv1.Scope
		wantWrite registryv1.Scope
		wantReads int
	}{
		"bare":                  {"config/app", unspecified, "config/app", unspecified, local, 2},
		"bare with global flag": {"config/app", global, "config/app", global, global, 1},
		"bare with local flag":  {"config/app", local, "config/app", local, local, 1},
		"full global":           {"global/x", unspecified, "x", global, global, 1},
		"full local":            {"local/x", unspecified, "x", local, local, 1},
		"full and flag agree":   {"global/x", global, "x", global, global, 1},
		"inner local":           {"config/local/db_url", unspecified, "config/local/db_url", unspecified, local, 2},
		"the word global":       {"global", unspecified, "global", unspecified, local, 2},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := record.ParseKey(c.key, c.scope)
			require.NoError(t, err)
			require.Equal(t, c.bare, k.Bare)
			require.Equal(t, c.want, k.Scope)
			require.Equal(t, c.wantWrite, k.Write())
			require.Len(t, k.Read(), c.wantReads)
		})
	}
}

func TestParseKeyNamesTheFieldAtFault(t *testing.T) {
	for name, c := range map[string]struct {
		key   string
		scope registryv1.Scope
		field string
	}{
		"empty":             {"", unspecified, "key"},
		"only a scope":      {"global/", unspecified, "key"},
		"leading slash":     {"/x", unspecified, "key"},
		"slash after scope": {"local//x", unspecified, "key"},
		"control":           {"a\x00b", unspecified, "key"},
		"invalid UTF-8":     {"a\xffb", unspecified, "key"},
		"too long":          {strings.Repeat("k", 513), unspecified, "key"},
		"contradiction":     {"global/x", local, "scope"},
		"contradiction 2":   {"local/x", global, "scope"},
		"unknown scope":     {"x", 9, "scope"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := record.ParseKey(c.key, c.scope)
			f, ok := fault.As(err)
			require.True(t, ok, "%v", err)
			require.Equal(t, fault.InvalidArgument, f.Code())
			require.Equal(t, c.field, f.Field())
			require.NotEmpty(t, f.Remedy())
		})
	}
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"", "x", "global/x", "local/x", "global/", "/", "a//b", "global/local/x", "\xff", "a\nb"} {
		f.Add(seed, int32(0))
		f.Add(seed, int32(2))
	}
	f.Fuzz(func(t *testing.T, key string, scope int32) {
		k, err := record.ParseKey(key, registryv1.Scope(scope))
		if err != nil {
			require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
			return
		}
		// What was parsed reads back as itself, and its scope is the stored row's scope.
		stored := k.In(k.Write())
		require.Equal(t, record.Key{Bare: k.Bare, Scope: k.Write()}, record.FromStored(stored))
		require.Equal(t, k.Write() == global, record.Global(registryv1.Table_TABLE_KV, stored))
	})
}
