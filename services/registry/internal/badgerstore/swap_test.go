package badgerstore

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// rowPlace is where a row of the test is.
type rowPlace struct {
	at   int64
	size int
}

// appendRows appends rows of different sizes, and answers where they are.
func appendRows(t *testing.T, s *swap, n int) []rowPlace {
	t.Helper()
	var all []rowPlace
	for i := range n {
		at := s.size()
		require.NoError(t, s.append(row(fmt.Sprint(i), fmt.Sprintf("%0*d", 1+i%90, i), 1)))
		s.spill()
		all = append(all, rowPlace{at, int(s.size() - at)})
	}
	return all
}

func requireRows(t *testing.T, s swap, all []rowPlace) {
	t.Helper()
	for i, at := range all {
		value, err := s.read(at.at, at.size)
		require.NoError(t, err)
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
	early := s
	more := appendRows(t, &s, 100)
	requireRows(t, early, all)
	requireRows(t, s, more)
	s.flush()
	require.Nil(t, s.buffer)
	requireRows(t, s, all)
	requireRows(t, early, all)
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
	require.NoError(t, os.Mkdir(dir, 0o700))
	s.flush()
	require.Nil(t, s.buffer)
	requireRows(t, s, all)
}

func TestFilesThatAKilledProcessLeftAreRemoved(t *testing.T) {
	options := testOptions(t.TempDir())
	left := filepath.Join(options.Dir, "tail-1234")
	require.NoError(t, os.WriteFile(left, []byte("rows"), 0o600))
	mustOpen(t, options)
	require.NoFileExists(t, left)
}
