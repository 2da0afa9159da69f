package badgerstore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/steps"
)

const requests = registryv1.Table_TABLE_REQUEST

var modelTables = []registryv1.Table{kv, requests, registryv1.Table_TABLE_LEASE}

// known is what the model knows of a row: what was written last, and when; dropped rows it does not
// know.
type known struct {
	value string // empty: a tombstone
	index uint64
}

func knownOf(row *registryv1.Record) known {
	return known{string(row.GetValue()), row.GetModifyIndex()}
}

// everything keeps every state there ever was, and the changes that led there, as the Raft log
// does.
type everything struct {
	states  []map[rowID]known
	entries []map[rowID]*registryv1.Record // nil: dropped
}

func newEverything() *everything {
	return &everything{states: []map[rowID]known{{}}, entries: []map[rowID]*registryv1.Record{nil}}
}

func (e *everything) last() uint64 { return uint64(len(e.states) - 1) }

// apply writes the entry of an index into a store.
func (e *everything) apply(t require.TestingT, s *Store, index uint64) {
	b := s.Begin()
	defer b.Discard()
	tx := b.At(index)
	byKey := func(a, b rowID) int { return cmp.Or(cmp.Compare(a.table, b.table), strings.Compare(a.key, b.key)) }
	for _, id := range slices.SortedFunc(maps.Keys(e.entries[index]), byKey) {
		old, err := tx.Get(id.table, id.key)
		require.NoError(t, err)
		before, there := e.states[index-1][id]
		require.Equal(t, there && before.value != "", record.Live(old), "at %d a command finds %v", index, id)
		require.True(t, !there || old == nil || old.GetModifyIndex() == before.index)
		if r := e.entries[index][id]; r != nil {
			require.NoError(t, tx.Put(&registryv1.Record{Table: id.table, Key: id.key, Value: r.GetValue(), Deleted: r.GetDeleted(), ModifyIndex: index}))
			continue
		}
		require.NoError(t, tx.Drop(id.table, id.key))
	}
	require.NoError(t, b.Commit())
}

// next makes up an entry.
func (e *everything) next(t *rapid.T) uint64 {
	index := e.last() + 1
	entry, state := map[rowID]*registryv1.Record{}, maps.Clone(e.states[index-1])
	for range rapid.IntRange(1, 3).Draw(t, "rows") {
		id := rowID{rapid.SampledFrom(modelTables).Draw(t, "table"), rapid.SampledFrom([]string{"a", "a/1", "a/2", "b", "ba", "c"}).Draw(t, "key")}
		switch rapid.IntRange(0, 7).Draw(t, "what") {
		case 0, 1:
			entry[id] = nil
			delete(state, id)
		case 2:
			entry[id] = &registryv1.Record{Deleted: true}
			state[id] = known{"", index}
		default:
			value := strings.Repeat(fmt.Sprint(index), rapid.IntRange(1, 40).Draw(t, "length"))
			entry[id] = &registryv1.Record{Value: []byte(value)}
			state[id] = known{value, index}
		}
	}
	e.entries, e.states = append(e.entries, entry), append(e.states, state)
	return index
}

// wanted is what a reader asks for. Tombstones at or below gone may be there or not, so it does not
// ask for those.
type wanted struct {
	table        registryv1.Table // 0: all
	since, gone  uint64
	prefix, from string
	deleted      bool
}

func (w wanted) takes(id rowID, v known) bool {
	return (w.table == 0 || id.table == w.table) && v.index > w.since && strings.HasPrefix(id.key, w.prefix) && id.key >= w.from &&
		(v.value != "" || w.deleted && v.index > w.gone)
}

// of returns the rows of a state that are wanted.
func (w wanted) of(state map[rowID]known) map[rowID]known {
	out := maps.Clone(state)
	maps.DeleteFunc(out, func(id rowID, v known) bool { return !w.takes(id, v) })
	return out
}

// turn flushes the immutable memtable, and makes the active one immutable however little is in it.
func turn(s *Store) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	err := s.flushImmutable()
	if err == nil {
		s.freeze()
	}
	return err
}

// viewOf shows a store as of an index, perhaps while it is flushed.
func viewOf(t *rapid.T, s *Store, at uint64, fn func(record.Reader) error) error {
	switch rapid.SampledFrom([]string{"never", "once it has begun", "while it begins"}).Draw(t, "flushed") {
	case "never":
		return s.ViewAt(at, fn)
	case "once it has begun":
		return s.ViewAt(at, func(r record.Reader) error {
			require.NoError(t, turn(s))
			return fn(r)
		})
	}
	v := &view{db: s.db, index: at, rows: s.rows, oldest: s.Oldest, watermark: s.Oldest(), tables: s.tables.Load()}
	defer v.discard()
	require.NoError(t, turn(s))
	return fn(v)
}

// check compares every way to read a store as of an index.
func (e *everything) check(t *rapid.T, s *Store, at uint64) {
	want := wanted{
		table: rapid.SampledFrom(modelTables).Draw(t, "table"), since: rapid.Uint64Range(0, at).Draw(t, "since"), gone: s.Watermark(),
		prefix: rapid.SampledFrom([]string{"", "a", "a/", "b", "d"}).Draw(t, "prefix"),
		from:   rapid.SampledFrom([]string{"", "a/1", "b", "bb"}).Draw(t, "from"), deleted: rapid.Bool().Draw(t, "deleted"),
	}
	require.NoError(t, viewOf(t, s, at, func(r record.Reader) error {
		got, before := map[rowID]known{}, ""
		o := record.ScanOptions{Prefix: want.prefix, From: want.from, Since: want.since, Deleted: want.deleted}
		err := r.Scan(want.table, o, func(row *registryv1.Record) bool {
			require.Less(t, before, row.GetKey(), "rows come in their order")
			before = row.GetKey()
			if id := (rowID{row.GetTable(), row.GetKey()}); !row.GetDeleted() || row.GetModifyIndex() > want.gone {
				got[id] = knownOf(row)
			}
			return true
		})
		require.NoError(t, err)
		require.Equal(t, want.of(e.states[at]), got, "at %d: %+v", at, want)
		for _, key := range []string{"a", "a/1", "a/2", "b", "ba", "c", "never"} {
			id := rowID{want.table, key}
			row, err := r.Get(id.table, id.key)
			require.NoError(t, err)
			if is := e.states[at][id]; is.value != "" || is.index > want.gone {
				require.Equal(t, is, knownOf(row), "%v at %d", id, at)
			} else {
				require.False(t, record.Live(row), "%v at %d", id, at)
			}
			e.checkHistory(t, r, id, at, want.gone)
		}
		return nil
	}))
}

// checkHistory compares the versions of a row since the watermark, back to where it was dropped.
func (e *everything) checkHistory(t require.TestingT, r record.Reader, id rowID, at, gone uint64) {
	var got, want []uint64
	watermark, err := r.History(id.table, id.key, func(row *registryv1.Record) bool {
		if !row.GetDeleted() || row.GetModifyIndex() > gone {
			got = append(got, row.GetModifyIndex())
		}
		return true
	})
	require.NoError(t, err)
	for index, first := at, true; index > 0; index-- {
		written, changed := e.entries[index][id]
		if !changed {
			continue
		}
		if written == nil || index <= watermark && !first {
			break
		}
		if first = false; !written.GetDeleted() || index > gone {
			want = append(want, index)
		}
	}
	require.Equal(t, want, got, "the history of %v at %d above %d", id, at, watermark)
}

// dir returns a folder that goes with the check.
func dir(t *rapid.T) string {
	path, err := os.MkdirTemp("", "badgerstore-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	return path
}

// imageOf copies the files of a store that is in use, as a process that is killed leaves them. What
// they end with that was never written is left out.
func imageOf(t require.TestingT, from, to string) {
	for !imaged(t, from, to) {
		require.NoError(t, os.RemoveAll(to))
	}
}

// imaged copies the files, and reports whether Badger left all of them where they were meanwhile.
func imaged(t require.TestingT, from, to string) bool {
	require.NoError(t, os.MkdirAll(to, 0o700))
	files, err := os.ReadDir(from)
	require.NoError(t, err)
	for _, f := range files {
		if f.Name() == "LOCK" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			return false
		}
		require.NoError(t, err)
		path := filepath.Join(to, f.Name())
		require.NoError(t, os.WriteFile(path, bytes.TrimRight(text, "\x00"), 0o600))
		require.NoError(t, os.Truncate(path, int64(len(text))))
	}
	return true
}

// Whatever is written, flushed in part or in whole, let go, exported, restored, killed and opened
// again: every index of the window shows what a model that keeps everything shows.
func TestTheStoreAgreesWithAModelOfAllStates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := testOptions(dir(t))
		o.BadgerMemtableBytes = 1 << 20 // It is opened a thousand times.
		o.RowCacheBytes = rapid.SampledFrom([]int64{0, 1 << 20}).Draw(t, "cache")
		o.Retention = rapid.SampledFrom([]uint64{3, 12, 1000}).Draw(t, "retention")
		o.MemtableBytes = rapid.SampledFrom([]int64{2 << 10, 16 << 10, 1 << 20}).Draw(t, "memtable")
		s, err := Open(o)
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		e := newEverything()
		again := func() {
			for index := s.Applied() + 1; index <= e.last(); index++ {
				e.apply(t, s, index)
			}
		}
		reopen := func() {
			s, err = Open(o)
			require.NoError(t, err)
			require.Equal(t, e.last(), s.Reached())
			again()
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				for range rapid.IntRange(1, 8).Draw(t, "entries") {
					e.apply(t, s, e.next(t))
				}
			},
			"flush what is old": func(t *rapid.T) { require.NoError(t, turn(s)) },
			"flush all": func(t *rapid.T) {
				_, err := s.Sync()
				require.NoError(t, err)
			},
			"purge": func(t *rapid.T) {
				_, err := s.Purge(t.Context())
				require.NoError(t, err)
			},
			"end and begin anew": func(t *rapid.T) {
				switch rapid.SampledFrom([]string{"close", "kill", "kill in a flush", "kill at a step"}).Draw(t, "how") {
				case "close":
					require.NoError(t, s.Close())
				case "kill":
					die(t, s)
				case "kill in a flush":
					if rapid.Bool().Draw(t, "of all") {
						require.NoError(t, turn(s))
					}
					if table := s.tables.Load().immutable; table != nil {
						require.NoError(t, s.write(table, s.watermarkAt(table.last.Load())))
					}
					die(t, s)
				default:
					image, at := dir(t), rapid.SampledFrom([]string{steps.Flushing, steps.Flushed, steps.FlushedFiles, steps.FlushedManifest}).Draw(t, "step")
					done := false
					s.opts.Step = func(step string) {
						if step == at && !done {
							done = true
							imageOf(t, o.Dir, image)
						}
					}
					require.NoError(t, turn(s))
					die(t, s)
					if done {
						o.Dir = image
					}
				}
				reopen()
			},
			"restore": func(t *rapid.T) {
				var snapshot bytes.Buffer
				require.NoError(t, s.WriteSnapshot(rapid.Uint64Range(s.Oldest(), s.Applied()).Draw(t, "of"), &snapshot))
				require.NoError(t, s.Restore(&snapshot))
				again()
			},
			"export": func(t *rapid.T) {
				want := wanted{since: rapid.Uint64Range(s.Watermark(), s.Applied()).Draw(t, "since")}
				want.deleted, want.gone = want.since > 0, s.Watermark()
				export, err := s.Export(want.since)
				require.NoError(t, err)
				defer export.Close()
				require.NoError(t, turn(s)) // What it reads moves to the files meanwhile.
				got := map[rowID]known{}
				for {
					row, err := export.Next()
					require.NoError(t, err)
					if row == nil {
						break
					}
					got[rowID{row.GetTable(), row.GetKey()}] = knownOf(row)
				}
				require.Equal(t, want.of(e.states[export.Index()]), got)
			},
			"": func(t *rapid.T) {
				e.check(t, s, s.Applied())
				e.check(t, s, rapid.Uint64Range(s.Oldest(), s.Applied()).Draw(t, "at"))
			},
		})
	})
}
