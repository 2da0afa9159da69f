package raftnode

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/stretchr/testify/require"
)

const (
	ahead       = 64 << 10
	testSegment = 2*ahead + 1000
)

// fill overwrites a file with ones, so that zeros are seen to have been written.
func fill(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{1}, testSegment), 0o600))
}

// requireZeros says that a file has zeros from a place on, so many, and what it had before behind
// them.
func requireZeros(t *testing.T, path string, from, count int) {
	t.Helper()
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, have, testSegment)
	require.True(t, bytes.Equal(make([]byte, count), have[from:from+count]), "zeros")
	require.Equal(t, testSegment-from-count, bytes.Count(have[from+count:], []byte{1}), "behind them")
}

func TestWhatIsWrittenLittleByLittleGoesOverZeros(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "segment")
	fill(t, path)
	f, err := files{walfs.New(), make([]byte, ahead)}.OpenWriter(dir, "segment")
	require.NoError(t, err)
	defer f.Close()
	write := func(offset, size int) {
		n, err := f.WriteAt(bytes.Repeat([]byte{2}, size), int64(offset))
		require.NoError(t, err)
		require.Equal(t, size, n)
		require.NoError(t, f.Sync())
	}
	write(0, 100)
	requireZeros(t, path, 100, ahead)
	write(100, 1000)
	requireZeros(t, path, 1100, ahead-1000)
	write(1100, smallWrite+1)
	requireZeros(t, path, 1101+smallWrite, ahead-1001-smallWrite)
	write(ahead, 200)
	requireZeros(t, path, ahead+200, ahead)
	write(2*ahead+200, 10)
	requireZeros(t, path, 2*ahead+210, testSegment-2*ahead-210)
	write(testSegment-10, 10)
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, have, testSegment, "it ends where it ended")
	require.Equal(t, 100+1000+smallWrite+1+200+10+10, bytes.Count(have, []byte{2}), "nothing is written over")
}

func TestNoZerosAreWrittenWhereNoneAreWanted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "segment")
	fill(t, path)
	f, err := files{walfs.New(), nil}.OpenWriter(dir, "segment")
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{2}, 0)
	require.NoError(t, err)
	requireZeros(t, path, 1, 0)
}

func TestNewSegmentsHaveTheirSize(t *testing.T) {
	dir := t.TempDir()
	f, err := files{walfs.New(), make([]byte, ahead)}.Create(dir, "segment", testSegment)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{2}, 0)
	require.NoError(t, err)
	requireSize(t, filepath.Join(dir, "segment"), testSegment)
	_, err = files{walfs.New(), make([]byte, ahead)}.Create(dir, "segment", testSegment)
	require.ErrorIs(t, err, os.ErrExist)
	_, err = files{walfs.New(), make([]byte, ahead)}.OpenWriter(dir, "other")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func requireSize(t *testing.T, path string, size int64) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, size, info.Size())
}
