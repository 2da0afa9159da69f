package badgerstore

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// known is what the model knows of a row: what was written last, and when; dropped rows it does not know.
type known struct {
	value string // empty: a tombstone
	index uint64
}

// everything keeps every state there ever was, and the changes that led there, as the Raft log does.
type everything struct {
	states  []map[string]known
	entries []map[string]*registryv1.Record // nil: dropped
}

// apply writes the entry of an index into a store.
func (e *everything) apply(t require.TestingT, s *Store, index uint64) {
	b := s.Begin()
	defer b.Discard()
	tx := b.At(index)
	for _, key := range slices.Sorted(maps.Keys(e.entries[index])) {
		old, err := tx.Get(kv, key)
		require.NoError(t, err)
		before, there := e.states[index-1][key]
		require.Equal(t, there && before.value != "", record.Live(old), "at %d a command finds %s", index, key)
		require.True(t, !there || old == nil || old.GetModifyIndex() == before.index)
		if r := e.entries[index][key]; r != nil {
			require.NoError(t, tx.Put(row(key, string(r.GetValue()), index)))
			continue
		}
		require.NoError(t, tx.Drop(kv, key))
	}
	require.NoError(t, b.Commit())
}

// next makes up an entry.
func (e *everything) next(t *rapid.T) uint64 {
	index := uint64(len(e.states))
	entry, state := map[string]*registryv1.Record{}, maps.Clone(e.states[index-1])
	for range rapid.IntRange(1, 3).Draw(t, "rows") {
		key := rapid.SampledFrom([]string{"a", "a/1", "a/2", "b", "ba", "c"}).Draw(t, "key")
		if rapid.IntRange(0, 4).Draw(t, "drop") == 0 {
			entry[key] = nil
			delete(state, key)
			continue
		}
		value := strings.Repeat(fmt.Sprint(index), rapid.IntRange(1, 40).Draw(t, "length"))
		entry[key] = &registryv1.Record{Value: []byte(value)}
		state[key] = known{value, index}
	}
	e.entries, e.states = append(e.entries, entry), append(e.states, state)
	return index
}

// above answers the rows of a state that have a prefix and were written after an index.
func (e *everything) above(at, since uint64, prefix string) map[string]known {
	out := maps.Clone(e.states[at])
	maps.DeleteFunc(out, func(key string, v known) bool { return v.index <= since || !strings.HasPrefix(key, prefix) })
	return out
}

// check compares every way to read a store as of an index.
func (e *everything) check(t *rapid.T, s *Store, at uint64) {
	since := rapid.Uint64Range(0, at).Draw(t, "since")
	prefix := rapid.SampledFrom([]string{"", "a", "a/", "b", "d"}).Draw(t, "prefix")
	require.NoError(t, s.ViewAt(at, func(r record.Reader) error {
		got := map[string]known{}
		err := r.Scan(kv, record.ScanOptions{Prefix: prefix, Since: since}, func(row *registryv1.Record) bool {
			got[row.GetKey()] = known{string(row.GetValue()), row.GetModifyIndex()}
			return true
		})
		require.NoError(t, err)
		require.Equal(t, e.above(at, since, prefix), got, "at %d since %d below %q", at, since, prefix)
		for _, key := range []string{"a", "a/1", "a/2", "b", "ba", "c", "never"} {
			row, err := r.Get(kv, key)
			require.NoError(t, err)
			require.Equal(t, e.states[at][key].index, row.GetModifyIndex(), "%s at %d", key, at)
			e.checkHistory(t, r, key, at)
		}
		return nil
	}))
}

// checkHistory compares the versions of a row since the floor, back to where it was dropped.
func (e *everything) checkHistory(t require.TestingT, r record.Reader, key string, at uint64) {
	var got, want []uint64
	floor, err := r.History(kv, key, func(row *registryv1.Record) bool {
		got = append(got, row.GetModifyIndex())
		return true
	})
	require.NoError(t, err)
	for index := at; index > 0; index-- {
		written, changed := e.entries[index][key]
		if changed && written == nil {
			break
		}
		if changed && (index > floor || len(want) == 0) {
			want = append(want, index)
		}
	}
	require.Equal(t, want, got, "the history of %s at %d above %d", key, at, floor)
}

// dir answers a folder that goes with the check.
func dir(t *rapid.T) string {
	path, err := os.MkdirTemp("", "badgerstore-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	return path
}

// Whatever is written, flushed in part or in whole, let go, exported, killed and opened again: every index of the window shows
// what a model that keeps everything shows.
func TestTheStoreAgreesWithAModelOfAllStates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := testOptions(dir(t))
		o.MemTableBytes = 1 << 20 // It is opened a thousand times.
		o.RowCacheBytes = rapid.SampledFrom([]int64{0, 1 << 20}).Draw(t, "cache")
		o.Retention = rapid.SampledFrom([]uint64{3, 12, 1000}).Draw(t, "retention")
		o.TailBytes = rapid.SampledFrom([]int64{2 << 10, 16 << 10, 1 << 20}).Draw(t, "tail")
		s, err := Open(o)
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		e := &everything{states: []map[string]known{{}}, entries: []map[string]*registryv1.Record{nil}}
		reopen := func() {
			s, err = Open(o)
			require.NoError(t, err)
			require.Equal(t, uint64(len(e.states)-1), s.Reached())
			for index := s.Applied() + 1; index <= s.Reached(); index++ {
				e.apply(t, s, index)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				for range rapid.IntRange(1, 8).Draw(t, "entries") {
					e.apply(t, s, e.next(t))
				}
			},
			"flush what is old": func(t *rapid.T) { require.NoError(t, s.shorten()) },
			"flush all": func(t *rapid.T) {
				_, err := s.Sync()
				require.NoError(t, err)
			},
			"purge": func(t *rapid.T) {
				_, err := s.Purge(t.Context())
				require.NoError(t, err)
			},
			"end and begin anew": func(t *rapid.T) {
				switch rapid.SampledFrom([]string{"close", "kill", "kill in a flush"}).Draw(t, "how") {
				case "close":
					require.NoError(t, s.Close())
					reopen()
					return
				case "kill in a flush":
					index := rapid.Uint64Range(s.synced.Load(), s.Applied()).Draw(t, "up to")
					require.NoError(t, s.write(index, min(index, s.Watermark())))
				}
				require.NoError(t, s.db.Close())
				require.NoError(t, s.reached.file.Close())
				reopen()
			},
			"export": func(t *rapid.T) {
				since := rapid.Uint64Range(s.Watermark(), s.Applied()).Draw(t, "since")
				export, err := s.Export(since)
				require.NoError(t, err)
				defer export.Close()
				require.NoError(t, s.shorten()) // What it reads moves to the files meanwhile.
				got := map[string]known{}
				for {
					row, err := export.Next()
					require.NoError(t, err)
					if row == nil {
						break
					}
					got[row.GetKey()] = known{string(row.GetValue()), row.GetModifyIndex()}
				}
				require.Equal(t, e.above(export.Index(), since, ""), got)
			},
			"": func(t *rapid.T) {
				e.check(t, s, s.Applied())
				e.check(t, s, rapid.Uint64Range(s.Oldest(), s.Applied()).Draw(t, "at"))
			},
		})
	})
}
