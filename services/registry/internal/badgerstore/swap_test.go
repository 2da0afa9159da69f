package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// rowPlace is where a row of the test is.
type rowPlace struct {
	at   int64
	size int
}

// appendRows appends rows of different sizes, and returns where they are.
func appendRows(t *testing.T, s *swap, n int) []rowPlace {
	t.Helper()
	var all []rowPlace
	for i := range n {
		at := s.size()
		require.NoError(t, s.append(row(fmt.Sprint(i), fmt.Sprintf("%0*d", 1+i%90, i), 1)))
		all = append(all, rowPlace{at, int(s.size() - at)})
	}
	return all
}

func requireRows(t *testing.T, s swap, all []rowPlace) {
	t.Helper()
	for i, at := range all {
		value := make([]byte, at.size)
		if file := s.copy(value, at.at); file != nil {
			_, err := file.ReadAt(value, at.at)
			require.NoError(t, err)
		}
		got, err := decodeRow(value, false)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), got.GetKey())
		require.Equal(t, fmt.Sprintf("%0*d", 1+i%90, i), string(got.GetValue()))
	}
}

func TestRowsComeBackFromMemoryAndFromTheFile(t *testing.T) {
	dir := t.TempDir()
	s := swap{dir: dir, spillBytes: 1000}
	all := appendRows(t, &s, 300)
	require.NotNil(t, s.file)
	require.Less(t, len(s.buffer), 1000)
	requireRows(t, s, all)
	more := appendRows(t, &s, 100)
	requireRows(t, s, more)
	require.NotNil(t, s.end())
	require.Nil(t, s.buffer)
	requireRows(t, s, all)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "a process that is killed leaves nothing behind")
}

// A disk that takes nothing costs memory, not rows.
func TestRowsThatCannotBeWrittenStayInMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not there")
	s := swap{dir: dir, spillBytes: 1000}
	all := appendRows(t, &s, 300)
	require.Nil(t, s.file)
	requireRows(t, s, all)
	require.Nil(t, s.end(), "the buffer is in use")
	require.NoError(t, os.Mkdir(dir, 0o700))
	appendRows(t, &s, 600)
	require.NotNil(t, s.file, "it is tried again")
	requireRows(t, s, all)
}

func TestFilesThatAKilledProcessLeftAreRemoved(t *testing.T) {
	options := testOptions(t.TempDir())
	left := filepath.Join(options.Dir, "tail-1234")
	require.NoError(t, os.WriteFile(left, []byte("rows"), 0o600))
	mustOpen(t, options)
	require.NoFileExists(t, left)
}

// Whoever reads while memtables fill, are flushed and let go sees rows as they were.
func TestRowsAreWholeWhileTheyMove(t *testing.T) {
	options := testOptions(t.TempDir())
	options.RetentionBytes, options.MemtableBytes, options.RowCacheBytes = 64<<10, 256<<10, 0
	s := mustOpen(t, options)
	stop := make(chan struct{})
	var readers errgroup.Group
	for range 2 {
		readers.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				err := s.View(func(r record.Reader) error {
					check := func(row *registryv1.Record) bool {
						return row == nil || strings.Count(string(row.GetValue()), fmt.Sprint(row.GetModifyIndex())+",") == 20
					}
					row, err := r.Get(kv, "row-3")
					if err != nil || !check(row) {
						return fmt.Errorf("row %v: %w", row, err)
					}
					whole := true
					err = r.Scan(kv, record.ScanOptions{}, func(row *registryv1.Record) bool {
						whole = check(row)
						return whole
					})
					if err == nil && !whole {
						err = errors.New("a scan found a broken row")
					}
					return err
				})
				if err != nil && fault.ReasonOf(err) != record.ReasonCompacted {
					return err
				}
			}
		})
	}
	for index := uint64(1); index <= 5000; index++ {
		b := s.Begin()
		require.NoError(t, b.At(index).Put(row(fmt.Sprintf("row-%d", index%40), strings.Repeat(fmt.Sprint(index)+",", 20), index)))
		require.NoError(t, b.Commit())
		b.Discard()
	}
	close(stop)
	require.NoError(t, readers.Wait())
}
