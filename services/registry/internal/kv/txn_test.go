package kv_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
)

// Pages of any size, folded at a separator, show what folding the whole list shows.
func TestFoldersAreTheKeysFoldedWhateverThePages(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStore(t)
		keys := rapid.SliceOfN(rapid.StringMatching(`(global/)?[ab]/?[ab]?/?[abc]`), 1, 20).Draw(rt, "keys")
		for _, key := range keys {
			s.set(key, "v")
		}
		scope := rapid.SampledFrom([]registryv1.Scope{unspecified, local, global}).Draw(rt, "scope")
		prefix := record.Key{Bare: rapid.SampledFrom([]string{"", "a", "a/", "b/a"}).Draw(rt, "prefix"), Scope: scope}
		hidden := rapid.SampledFrom([]string{"", "local/a", "global/b/"}).Draw(rt, "hidden")
		sees := func(key string) bool { return hidden == "" || !strings.HasPrefix(key, hidden) }

		whole, err := kv.List(s, prefix, kv.ListOptions{Sees: sees})
		require.NoError(rt, err)
		var folders, entries []string
		for _, e := range whole.Entries {
			rest := strings.TrimPrefix(e.GetKey(), prefix.Bare)
			if folder, _, ok := strings.Cut(rest, "/"); ok {
				folders = append(folders, prefix.Bare+folder+"/")
			} else {
				entries = append(entries, fmt.Sprintf("%s@%d", e.GetKey(), e.GetScope()))
			}
		}
		slices.Sort(folders)
		folders = slices.Compact(folders)

		options := kv.ListOptions{Separator: "/", Limit: rapid.Uint32Range(1, 5).Draw(rt, "limit"), Sees: sees}
		var gotFolders, gotEntries []string
		for {
			page, err := kv.List(s, prefix, options)
			require.NoError(rt, err)
			require.LessOrEqual(rt, len(page.Entries)+len(page.Folders), int(options.Limit))
			gotFolders = append(gotFolders, page.Folders...)
			for _, e := range page.Entries {
				gotEntries = append(gotEntries, fmt.Sprintf("%s@%d", e.GetKey(), e.GetScope()))
			}
			if page.Next == "" {
				break
			}
			options.PageToken = page.Next
		}
		require.Equal(rt, folders, gotFolders)
		require.Equal(rt, entries, gotEntries)
	})
}

func TestMetaIsBounded(t *testing.T) {
	large := map[string]string{}
	for i := range 65 {
		large[fmt.Sprint(i)] = ""
	}
	for _, meta := range []map[string]string{large, {"": "x"}, {"a\nb": "x"}, {strings.Repeat("n", 129): "x"}, {"n": strings.Repeat("v", 513)}} {
		_, _, err := set(&registryv1.SetRequest{Key: "x", Meta: meta})
		f, _ := fault.As(err)
		require.Equal(t, "meta", f.Field())
		require.NotEmpty(t, f.Remedy())
	}
}

func TestLeasesAndFencesAreOfOneDatacenter(t *testing.T) {
	for field, request := range map[string]*registryv1.SetRequest{
		"lease":       {Key: "global/x", Lease: "l1"},
		"fence":       {Key: "global/x", Fence: &registryv1.Fence{Lock: "l", Token: 1}},
		"fence.token": {Key: "x", Fence: &registryv1.Fence{Lock: "l"}},
		"fence.lock":  {Key: "x", Fence: &registryv1.Fence{Lock: "global/l", Token: 1}},
	} {
		_, _, err := set(request)
		f, _ := fault.As(err)
		require.Equal(t, fault.InvalidArgument, f.Code())
		require.Equal(t, field, f.Field())
		require.NotEmpty(t, f.Remedy())
	}
}
