package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"konsul.dev/services/registry/internal/record"
)

// Every row is written at every index, so a reader as of an index must find just that in each. And
// one more is there at every other index only.
func TestCachedRowsAreThoseOfTheReadersIndex(t *testing.T) {
	for name, budget := range map[string]int64{"all fit": 1 << 20, "hardly any fits": 16 * (rowOverhead + 16)} {
		t.Run(name, func(t *testing.T) {
			options := testOptions(t.TempDir())
			options.RowCacheBytes = budget
			s := mustOpen(t, options)
			const rows, last = 40, 300
			written := make(chan struct{})
			var readers sync.WaitGroup
			for n := range 4 {
				readers.Go(func() {
					for i := n; ; i++ {
						select {
						case <-written:
							return
						default:
						}
						err := s.View(func(r record.Reader) error {
							got, err := r.Get(kv, fmt.Sprintf("row-%d", i%rows))
							if err == nil && got.GetModifyIndex() != r.Index() {
								err = fmt.Errorf("as of %d: a row of %d", r.Index(), got.GetModifyIndex())
							}
							if err != nil {
								return err
							}
							got, err = r.Get(kv, "now and then")
							if err == nil && (got != nil) != (r.Index()%2 == 1) {
								err = fmt.Errorf("as of %d: the row that comes and goes is %v", r.Index(), got)
							}
							return err
						})
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			for index := uint64(1); index <= last; index++ {
				b := s.Begin()
				tx := b.At(index)
				for n := range rows {
					require.NoError(t, tx.Put(row(fmt.Sprintf("row-%d", n), "v", index)))
				}
				if index%2 == 1 {
					require.NoError(t, tx.Put(row("now and then", "v", index)))
				} else {
					require.NoError(t, tx.Drop(kv, "now and then"))
				}
				require.NoError(t, b.Commit())
			}
			close(written)
			readers.Wait()
			for i := range s.rows.shards {
				require.LessOrEqual(t, s.rows.shards[i].bytes, s.rows.budget)
			}
		})
	}
}

func TestTheCacheForgetsDroppedRowsAndReplacedState(t *testing.T) {
	s := mustOpen(t, testOptions(t.TempDir()))
	step(t, s, 1, 2)
	find := func(key string) error {
		return s.View(func(r record.Reader) error {
			got, err := r.Get(kv, key)
			if err == nil && got == nil {
				err = errors.New("not there")
			}
			return err
		})
	}
	require.NoError(t, find("row-1"))
	b := s.Begin()
	require.NoError(t, b.At(3).Drop(kv, "row-1"))
	require.NoError(t, b.Commit())
	require.Error(t, find("row-1"))

	other := mustOpen(t, testOptions(t.TempDir()))
	step(t, other, 1, 1)
	restoreFrom(t, other, s)
	require.NoError(t, find("row-1"))
	require.Error(t, find("row-2"))
}

// What is not there is remembered as well, until it is.
func TestTheCacheKnowsThatThereIsNoRow(t *testing.T) {
	s := mustOpen(t, testOptions(t.TempDir()))
	step(t, s, 1, 1)
	find := func() (found bool) {
		require.NoError(t, s.View(func(r record.Reader) error {
			got, err := r.Get(kv, "later")
			found = got != nil
			return err
		}))
		return found
	}
	require.False(t, find())
	_, known := s.rows.get(rowID{kv, "later"}, s.Applied())
	require.True(t, known)
	b := s.Begin()
	require.NoError(t, b.At(2).Put(row("later", "v", 2)))
	require.NoError(t, b.Commit())
	require.True(t, find())
	_, known = s.rows.get(rowID{kv, "later"}, 1)
	require.False(t, known, "as of an index before it was written, the files say")
}

func TestTheCacheKeepsWhatIsAskedFor(t *testing.T) {
	const fit = 10
	s := cacheShard{}
	s.reset()
	id := func(n int) rowID { return rowID{kv, fmt.Sprintf("row-%03d", n)} }
	one := rowBytes(id(0), nil)
	for n := range 100 {
		s.put(id(n), cached{}, fit*one)
		if asked, ok := s.cells.get(id(0)); ok {
			asked.asked = true
		}
	}
	require.Contains(t, s.cells.table(kv), id(0).key)
	require.NotContains(t, s.cells.table(kv), id(1).key)
	require.Contains(t, s.cells.table(kv), id(99).key)
	require.Len(t, s.cells.table(kv), fit)
}

// Whatever is put, asked for and dropped: the chain and the map say the same, and the size is
// theirs.
func TestTheCacheKeepsItsAccounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := cacheShard{}
		s.reset()
		budget := rapid.IntRange(1, 5000).Draw(t, "budget")
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			id := rowID{kv, fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "row"))}
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				if c, _ := s.cells.get(id); c != nil {
					c.asked = true
				}
			case 1:
				s.drop(id)
			default:
				s.put(id, cached{row: row(id.key, strings.Repeat("v", rapid.IntRange(0, 500).Draw(t, "size")), 1)}, budget)
			}
			bytes, count, hand := 0, 0, s.hand == nil
			var before *cell
			for c := s.oldest; c != nil; before, c = c, c.newer {
				known, _ := s.cells.get(c.id)
				require.Same(t, known, c)
				require.Same(t, before, c.older)
				bytes += rowBytes(c.id, c.row)
				count++
				hand = hand || s.hand == c
			}
			require.Same(t, before, s.newest)
			require.Len(t, s.cells.table(kv), count)
			require.Equal(t, bytes, s.bytes)
			require.LessOrEqual(t, s.bytes, budget)
			require.True(t, hand, "the hand is on a cell that is here")
		}
	})
}

func restoreFrom(t *testing.T, source, target *Store) {
	t.Helper()
	var snapshot bytes.Buffer
	require.NoError(t, source.WriteSnapshot(source.Applied(), &snapshot))
	require.NoError(t, target.Restore(&snapshot))
}
