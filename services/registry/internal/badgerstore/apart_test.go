package badgerstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// slot is a version as it is put into a file.
type slot struct {
	key   string
	is    version
	value string
}

// written answers a file of slots, open.
func written(t require.TestingT, dir string, slots []slot) *apart {
	w, err := newApartWriter(dir, 7)
	require.NoError(t, err)
	defer w.cancel()
	for _, s := range slots {
		require.NoError(t, w.put([]byte(s.key), s.is, []byte(s.value)))
	}
	a, err := w.finish()
	require.NoError(t, err)
	return a
}

// readAll answers what a file holds from a key on, as far as it can be read.
func readAll(a *apart, from string) (slots []slot, err error) {
	e := a.from([]byte(from))
	for ; e.valid; e.next() {
		slots = append(slots, slot{string(e.key), e.version, string(e.value)})
	}
	return slots, e.err
}

// manySlots makes up slots of some blocks: rows of one version and of thousands, large ones and empty ones.
func manySlots() (slots []slot) {
	for n := range 3000 {
		value := strings.Repeat("v", n%40)
		if n%500 == 0 {
			value = strings.Repeat("large", 10_000)
		}
		slots = append(slots, slot{fmt.Sprintf("a/%04d", n), version{index: uint64(n)}, value})
	}
	for n := 4000; n > 0; n-- {
		is := version{index: uint64(n), tombstone: n%7 == 3}
		is.dropped = n%7 == 5
		slots = append(slots, slot{"b", is, fmt.Sprint(n)})
	}
	return append(slots, slot{"b/1", version{index: math.MaxUint64}, "last"})
}

func TestAFileOfRowsApartHoldsWhatWasPutThere(t *testing.T) {
	slots := manySlots()
	a := written(t, t.TempDir(), slots)
	require.Greater(t, len(a.blocks), 8)
	require.EqualValues(t, 3, a.tombstone)
	for from, first := range map[string]int{"": 0, "a/": 0, "a/0007": 7, "a/0007!": 8, "a/2999": 2999, "b": 3000, "b/": 7000, "b/1": 7000, "c": 7001} {
		got, err := readAll(a, from)
		require.NoError(t, err)
		require.Len(t, got, len(slots)-first, from)
		require.True(t, slices.Equal(slots[first:], got), from)
	}
}

func TestAFileOfRowsApartShowsThemAsOfAnIndex(t *testing.T) {
	a := written(t, t.TempDir(), manySlots())
	for _, at := range []uint64{0, 1, 2, 1999, 4000, math.MaxUint64} {
		var keys []string
		for r := a.rows([]byte("b"), []byte("b"), at); r.at() != nil; r.next() {
			keys = append(keys, string(r.key))
			require.LessOrEqual(t, r.stands().index, at)
			require.True(t, at > 4000 || r.stands().index == at)
		}
		require.Len(t, keys, map[uint64]int{0: 0, math.MaxUint64: 2}[at]+min(1, int(at%math.MaxUint64)), "as of %d", at)
	}
}

func TestAFileThatCannotBeWrittenLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	w, err := newApartWriter(dir, 1)
	require.NoError(t, err)
	require.NoError(t, w.file.Close()) // As good as a disk that is full.
	for n := range uint64(10_000) {
		if err = w.put(fmt.Appendf(nil, "%09d", n), version{index: n}, make([]byte, 100)); err != nil {
			break
		}
	}
	require.Error(t, err)
	w.cancel()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// FuzzApart damages a file: what is read of it then is what was written, or an error.
func FuzzApart(f *testing.F) {
	f.Add([]byte("some rows of a few words"), uint32(0), []byte("X"), uint32(0))
	f.Add([]byte("some rows of a few words"), uint32(60), []byte{0xff, 0xff, 0xff, 0xff}, uint32(0))
	f.Add([]byte("some rows of a few words"), uint32(90), []byte{0, 0, 0, 0, 0, 0, 0, 0x80}, uint32(0))
	f.Add([]byte("some rows of a few words"), uint32(0), []byte{}, uint32(1))
	f.Add(bytes.Repeat([]byte("many rows "), 4000), uint32(20_000), []byte("X"), uint32(0))
	f.Add([]byte{}, uint32(0), []byte{}, uint32(24))
	f.Fuzz(func(t *testing.T, rows []byte, at uint32, patch []byte, cut uint32) {
		var slots []slot
		for n, word := range bytes.Fields(rows) {
			kind := len(word) % 4
			slots = append(slots, slot{fmt.Sprintf("%06d", n), version{uint64(n), kind == 1, kind == 2}, string(word)})
		}
		dir := t.TempDir()
		a := written(t, dir, slots)
		require.NoError(t, a.close())
		path := filepath.Join(dir, a.name)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		text = text[:len(text)-min(len(text), int(cut))]
		if len(patch) > 4 {
			patch = patch[:4] // So much is noticed for certain.
		}
		copy(text[min(len(text), int(at)):], patch)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		if a, err = openApart(dir, a.name); err != nil {
			require.ErrorContains(t, err, path)
			return
		}
		defer func() { require.NoError(t, a.close()) }()
		got, err := readAll(a, "")
		require.LessOrEqual(t, len(got), len(slots))
		require.True(t, slices.Equal(slots[:len(got)], got))
		if err != nil {
			require.ErrorContains(t, err, path)
			return
		}
		require.Len(t, got, len(slots))
	})
}

// FuzzApartForged reads files whose checksums are right whatever is in them.
func FuzzApartForged(f *testing.F) {
	f.Add([]byte{0, 1, 'k', 7, 0, 1, 'v'}, []byte{})
	f.Add([]byte{9, 1, 'k', 7, 0, 1, 'v'}, []byte{1, 2, 1, 'k'})
	f.Add([]byte{0, 200, 'k'}, []byte{0, 0, 0})
	f.Add([]byte{0, 1, 'k', 7, 9, 0}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0})
	f.Fuzz(func(t *testing.T, block, directory []byte) {
		dir := t.TempDir()
		w, err := newApartWriter(dir, 1)
		require.NoError(t, err)
		defer w.cancel()
		require.NoError(t, w.put([]byte("k"), version{index: 9}, []byte("v")))
		w.block, w.directory = append(w.block, block...), append(w.directory, directory...)
		a, err := w.finish()
		if err != nil {
			return
		}
		_, _ = readAll(a, "")
		_, _, _ = a.find([]byte("k"), 8)
		require.NoError(t, a.close())
	})
}

func requestKey(index uint64) string { return fmt.Sprintf("%016x", index) }

func requestRow(index uint64) *registryv1.Record {
	return &registryv1.Record{
		Table: requests, Key: requestKey(index), Value: fmt.Appendf(nil, "outcome of %d", index), CreateIndex: index, ModifyIndex: index, Version: 1,
	}
}

// slide commits entries as the state machine does: each has a row of its own, and drops that of width entries before.
func slide(t require.TestingT, s *Store, first, last, width uint64) {
	for index := first; index <= last; index++ {
		b := s.Begin()
		tx := b.At(index)
		require.NoError(t, tx.Put(requestRow(index)))
		require.NoError(t, tx.Put(row(fmt.Sprintf("row-%d", index%8), "v", index)))
		if index > width {
			require.NoError(t, tx.Drop(requests, requestKey(index-width)))
		}
		require.NoError(t, b.Commit())
		b.Discard()
	}
}

// inWindow says what is wrong with the outcomes that a reader finds, who must find those of the last width entries.
func inWindow(r record.Reader, width uint64) error {
	next := r.Index() - min(r.Index(), width) + 1
	err := r.Scan(requests, record.ScanOptions{}, func(row *registryv1.Record) bool {
		if row.GetKey() != requestKey(next) || string(row.GetValue()) != fmt.Sprintf("outcome of %d", next) {
			return false
		}
		next++
		return true
	})
	if err == nil && next != r.Index()+1 {
		err = fmt.Errorf("as of %d: the row of %d is missing or another one", r.Index(), next)
	}
	return err
}

// inBadger counts the rows apart that Badger shows.
func inBadger(s *Store) (n int) {
	txn := s.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{apartTable}})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		n++
	}
	return n
}

func TestOutcomesOfRequestsDoNotGoIntoBadger(t *testing.T) {
	o := testOptions(t.TempDir())
	s := mustOpen(t, o)
	const width = 30
	slide(t, s, 1, 100, width)
	_, err := s.Sync()
	require.NoError(t, err)
	require.Zero(t, inBadger(s))
	require.NoError(t, s.View(func(r record.Reader) error { return inWindow(r, width) }))
	other := mustOpen(t, testOptions(t.TempDir()))
	restoreFrom(t, other, s)
	require.Zero(t, inBadger(other))
	require.NoError(t, other.View(func(r record.Reader) error { return inWindow(r, width) }))
	require.NoError(t, s.weigh())
	before := s.bytes.Load()
	require.NoError(t, os.Remove(filepath.Join(o.Dir, s.apart.Load().name)))
	require.NoError(t, s.weigh())
	require.Less(t, s.bytes.Load(), before, "the file counts")
}

// Earlier versions put the outcomes into Badger, and their marks name no file.
func TestOutcomesThatAnEarlierVersionPutIntoBadgerAreReadAndGo(t *testing.T) {
	o := testOptions(t.TempDir())
	s := mustOpen(t, o)
	const width = 30
	slide(t, s, 1, 50, width)
	flushAsBefore(t, s, 45)
	die(t, s)

	check := func(s *Store) {
		t.Helper()
		for at := s.Oldest(); at <= s.Applied(); at++ {
			require.NoError(t, s.ViewAt(at, func(r record.Reader) error {
				oldest, err := r.Get(requests, requestKey(at-width+1))
				require.Equal(t, at-width+1, oldest.GetModifyIndex())
				if err == nil {
					oldest, err = r.Get(requests, requestKey(at-width))
					require.Nil(t, oldest)
				}
				if err == nil {
					_, err = r.History(requests, requestKey(at-width+1), func(r *registryv1.Record) bool {
						require.Equal(t, at-width+1, r.GetModifyIndex())
						return true
					})
				}
				if err == nil {
					err = inWindow(r, width)
				}
				return err
			}))
		}
	}
	o.Retention = 10
	s = mustOpen(t, o)
	require.EqualValues(t, 45, s.Applied())
	require.Equal(t, width, inBadger(s))
	check(s)
	slide(t, s, 46, 60, width)
	check(s)
	_, err := s.Sync()
	require.NoError(t, err)
	require.NotEmpty(t, s.apart.Load().name)
	check(s)
	require.Equal(t, width-15, inBadger(s), "those that are gone are gone there, too")
	slide(t, s, 61, 70, width)
	die(t, s) // Ten entries were not flushed.

	s = mustOpen(t, o)
	require.EqualValues(t, 60, s.Applied())
	check(s)
	slide(t, s, 61, 80, width)
	require.NoError(t, s.Close())
	s = mustOpen(t, o)
	require.Zero(t, inBadger(s))
	check(s)
}

// An earlier version that opens the folder must not take what it finds for all there is.
func TestEarlierVersionsFindAMarkOfNothing(t *testing.T) {
	o := testOptions(t.TempDir())
	s := mustOpen(t, o)
	slide(t, s, 1, 9, 5)
	_, err := s.Sync()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(o.Dir, markFile))
	require.NoError(t, err)
	var earlier struct {
		Synced uint64  `json:"synced"`
		Floor  *uint64 `json:"floor"`
		Oldest uint64  `json:"oldest"`
	}
	require.NoError(t, json.Unmarshal(text, &earlier))
	require.Zero(t, earlier)
	now, err := readMark(o.Dir)
	require.NoError(t, err)
	require.EqualValues(t, 9, now.Synced)
}

func TestAFlushThatBringsNoOutcomeLeavesTheirFileAlone(t *testing.T) {
	s := mustOpen(t, testOptions(t.TempDir()))
	sync := func() string {
		t.Helper()
		_, err := s.Sync()
		require.NoError(t, err)
		require.LessOrEqual(t, filesApart(t, s), 1)
		return s.apart.Load().name
	}
	step(t, s, 1, 3)
	require.Empty(t, sync(), "there is nothing to be kept apart")
	slide(t, s, 4, 9, 100)
	first := sync()
	require.NotEmpty(t, first)
	step(t, s, 10, 12)
	require.Equal(t, first, sync())
	slide(t, s, 13, 13, 100)
	require.NotEqual(t, first, sync())
	require.NoFileExists(t, filepath.Join(s.opts.Dir, first))
}

func TestTombstonesOfRowsApartGoAtTheWatermarkAndAreCounted(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Retention = 10
	s := mustOpen(t, o)
	b := s.Begin()
	for index := uint64(1); index <= 3; index++ {
		tombstone := requestRow(index)
		tombstone.Deleted = true
		require.NoError(t, b.At(index).Put(tombstone))
	}
	require.NoError(t, b.Commit())
	_, err := s.Sync()
	require.NoError(t, err)
	tombstones := func() (n int) {
		require.NoError(t, s.View(func(r record.Reader) error {
			return r.Scan(requests, record.ScanOptions{Deleted: true}, func(*registryv1.Record) bool { n++; return true })
		}))
		return n
	}
	require.Equal(t, 3, tombstones())
	step(t, s, 4, 12) // None of them an outcome; the watermark is 2.
	n, err := s.Purge(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.EqualValues(t, 2, s.tombstones.Load())
	require.Equal(t, 1, tombstones())
	step(t, s, 13, 13)
	_, err = s.Sync()
	require.NoError(t, err)
	require.Zero(t, tombstones())
	require.EqualValues(t, 3, s.tombstones.Load())
}

func TestAFlushWhoseFileCannotBeWrittenIsTriedAgain(t *testing.T) {
	o := testOptions(t.TempDir())
	s := mustOpen(t, o)
	slide(t, s, 1, 20, 10)
	_, err := s.Sync()
	require.NoError(t, err)
	slide(t, s, 21, 40, 10)
	s.opts.Dir = filepath.Join(o.Dir, "not there")
	_, err = s.Sync()
	require.Error(t, err)
	require.EqualValues(t, 20, s.synced.Load())
	require.NoError(t, s.View(func(r record.Reader) error { return inWindow(r, 10) }))
	s.opts.Dir = o.Dir
	_, err = s.Sync()
	require.NoError(t, err)
	require.EqualValues(t, 40, s.synced.Load())
	require.NoError(t, s.View(func(r record.Reader) error { return inWindow(r, 10) }))
}

// damage opens a store with outcomes whose file was changed.
func damage(t *testing.T, how func(text []byte) []byte) (s *Store, path string, err error) {
	t.Helper()
	o := testOptions(t.TempDir())
	s = mustOpen(t, o)
	slide(t, s, 1, 1000, 900)
	_, err = s.Sync()
	require.NoError(t, err)
	path = filepath.Join(o.Dir, s.apart.Load().name)
	die(t, s)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	if text = how(text); text == nil {
		require.NoError(t, os.Remove(path))
	} else {
		require.NoError(t, os.WriteFile(path, text, 0o600))
	}
	s, err = Open(o)
	return s, path, err
}

func TestADamagedFileIsNoticedAndNamed(t *testing.T) {
	for name, how := range map[string]func([]byte) []byte{
		"its end is cut off": func(text []byte) []byte { return text[:len(text)-1] },
		"it is empty":        func([]byte) []byte { return []byte{} },
		"it is gone":         func([]byte) []byte { return nil },
		"its directory":      func(text []byte) []byte { text[len(text)-apartFoot-1]++; return text },
	} {
		t.Run(name, func(t *testing.T) {
			_, path, err := damage(t, how)
			require.ErrorContains(t, err, path)
		})
	}
	t.Run("a block", func(t *testing.T) {
		s, path, err := damage(t, func(text []byte) []byte { text[20_000]++; return text })
		require.NoError(t, err)
		for name, read := range map[string]func() error{
			"scan": func() error {
				return s.View(func(r record.Reader) error {
					return r.Scan(requests, record.ScanOptions{}, func(*registryv1.Record) bool { return true })
				})
			},
			"get": func() error {
				return s.View(func(r record.Reader) error { _, err := r.Get(requests, requestKey(400)); return err })
			},
			"history": func() error {
				return s.View(func(r record.Reader) error {
					_, err := r.History(requests, requestKey(400), func(*registryv1.Record) bool { return true })
					return err
				})
			},
			"snapshot": func() error { return s.WriteSnapshot(1000, io.Discard) },
			"export": func() error {
				e, err := s.Export(0)
				require.NoError(t, err)
				defer e.Close()
				for {
					if row, err := e.Next(); err != nil || row == nil {
						return err
					}
				}
			},
		} {
			require.ErrorContains(t, read(), path, name)
		}
		require.Equal(t, "v", valueAt(t, s, "row-3", 1000), "rows of other tables are read as ever")
		require.NoError(t, s.View(func(r record.Reader) error {
			return r.Scan(kv, record.ScanOptions{}, func(*registryv1.Record) bool { return true })
		}))
		slide(t, s, 1001, 1001, 900)
		require.ErrorContains(t, s.Close(), path, "a flush does not go on without what it cannot read")
	})
}

func TestFilesOfRowsApartThatDoNotCountAreRemoved(t *testing.T) {
	o := testOptions(t.TempDir())
	s := mustOpen(t, o)
	slide(t, s, 1, 9, 5)
	require.NoError(t, s.Close())
	left := filepath.Join(o.Dir, "requests-00000000000000ff-1234.rows")
	require.NoError(t, os.WriteFile(left, []byte("half a file"), 0o600))
	s = mustOpen(t, o)
	require.NoFileExists(t, left)
	require.FileExists(t, filepath.Join(o.Dir, s.apart.Load().name))
	require.NoError(t, s.View(func(r record.Reader) error { return inWindow(r, 5) }))
}

// Whoever reads while files are written and replaced sees the outcomes of one index, all of them.
func TestOutcomesAreWholeWhileTheirFileIsReplaced(t *testing.T) {
	o := testOptions(t.TempDir())
	o.RetentionBytes, o.TailBytes = 32<<10, 64<<10
	s := mustOpen(t, o)
	const width, last = 200, 6000
	slide(t, s, 1, width, width)
	ctx, stop := context.WithCancel(t.Context())
	var all errgroup.Group
	reader := func(read func() error) {
		all.Go(func() error {
			for ctx.Err() == nil {
				if err := read(); err != nil && fault.ReasonOf(err) != record.ReasonCompacted {
					return err
				}
			}
			return nil
		})
	}
	reader(func() error { return s.View(func(r record.Reader) error { return inWindow(r, width) }) })
	reader(func() error {
		oldest, applied := s.Oldest(), s.Applied()
		return s.ViewAt(max(width, oldest+rand.Uint64N(applied-oldest+1)), func(r record.Reader) error {
			key := r.Index() - rand.Uint64N(width)
			row, err := r.Get(requests, requestKey(key))
			if err == nil && row.GetModifyIndex() != key {
				err = fmt.Errorf("as of %d: the row of %d is one of %d", r.Index(), key, row.GetModifyIndex())
			}
			if err == nil {
				err = inWindow(r, width)
			}
			return err
		})
	})
	reader(func() error {
		e, err := s.Export(0)
		if err != nil {
			return err
		}
		defer e.Close()
		rows := 0
		for {
			row, err := e.Next()
			if err != nil {
				return err
			}
			if row == nil {
				break
			}
			if row.GetTable() == requests {
				rows++
			}
		}
		if rows != width {
			return fmt.Errorf("an export as of %d has %d outcomes", e.Index(), rows)
		}
		return nil
	})
	all.Go(func() error { return s.Maintain(ctx) })
	slide(t, s, width+1, last, width)
	stop()
	require.NoError(t, all.Wait())
	require.Greater(t, s.synced.Load(), uint64(last/2), "hardly anything was flushed, so nothing is tested")
}

// BenchmarkOutcomes goes through as many outcomes as are remembered at the most, as a server does at its start, and writes them anew.
func BenchmarkOutcomes(b *testing.B) {
	o := testOptions(b.TempDir())
	s, err := Open(o)
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close()) }()
	const rows = 1 << 18
	index := uint64(0)
	for index < rows {
		batch := s.Begin()
		for range 64 {
			index++
			require.NoError(b, batch.At(index).Put(requestRow(index)))
		}
		require.NoError(b, batch.Commit())
	}
	_, err = s.Sync()
	require.NoError(b, err)
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			n := 0
			require.NoError(b, s.View(func(r record.Reader) error {
				return r.Scan(requests, record.ScanOptions{}, func(*registryv1.Record) bool { n++; return true })
			}))
			require.Equal(b, rows, n)
		}
	})
	b.Run("flush", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			index++
			slide(b, s, index, index, rows)
			_, err := s.Sync()
			require.NoError(b, err)
		}
	})
}
