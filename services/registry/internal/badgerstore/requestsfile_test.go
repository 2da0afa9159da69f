package badgerstore

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// withRequestsFile unpacks a folder of the last version that wrote a requests file. Each of its 300
// entries wrote the row "local/k<index mod 7>" and a record of its own, and dropped that of 100
// entries before; it was flushed at 120, 299 and 300.
func withRequestsFile(t testing.TB) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	packed, err := os.Open("testdata/requests-file.tar.gz")
	require.NoError(t, err)
	defer func() { _ = packed.Close() }()
	unzipped, err := gzip.NewReader(packed)
	require.NoError(t, err)
	for r := tar.NewReader(unzipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if !header.FileInfo().Mode().IsRegular() {
			continue
		}
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(header.Name)), text, 0o600))
	}
	found, err := filepath.Glob(filepath.Join(dir, requestsFiles))
	require.NoError(t, err)
	require.Len(t, found, 1)
	return dir, found[0]
}

func TestARequestsFileIsAdopted(t *testing.T) {
	t.Parallel()
	dir, file := withRequestsFile(t)
	o := testOptions(dir)
	check := func(s *Store, last uint64) {
		t.Helper()
		for _, at := range []uint64{1, 50, 101, 120, 121, 250, 300, last} {
			require.NoError(t, s.ViewAt(at, func(r record.Reader) error {
				var got, want []string
				for index := at - min(at, 100) + 1; index <= at; index++ {
					want = append(want, fmt.Sprintf("outcome %d", index))
				}
				err := r.Scan(requests, record.ScanOptions{}, func(row *registryv1.Record) bool {
					got = append(got, string(row.GetValue()))
					return true
				})
				require.Equal(t, want, got, "as of %d", at)
				return err
			}))
		}
	}
	s, err := Open(o)
	require.NoError(t, err)
	require.EqualValues(t, 300, s.Applied())
	require.NoFileExists(t, file)
	require.Equal(t, "value 300", valueAt(t, s, "local/k6", 300))
	check(s, 300)
	b := s.Begin()
	tx := b.At(301)
	require.NoError(t, tx.Drop(requests, requestKey(201)))
	require.NoError(t, tx.Put(&registryv1.Record{Table: requests, Key: requestKey(301), Value: []byte("outcome 301"), ModifyIndex: 301}))
	require.NoError(t, b.Commit())
	b.Discard()
	check(s, 301)
	require.NoError(t, s.Close())
	check(mustOpen(t, o), 301)
}

// A server that dies before the manifest says that the file is adopted adopts it again; one that
// dies right after leaves a file that nobody needs.
func TestAdoptingARequestsFileCanBeCutShort(t *testing.T) {
	t.Parallel()
	dir, file := withRequestsFile(t)
	before, err := os.ReadFile(filepath.Join(dir, manifestFile))
	require.NoError(t, err)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, manifest := range [][]byte{before, nil} {
		s, err := Open(testOptions(dir))
		require.NoError(t, err)
		die(t, s)
		require.NoError(t, os.WriteFile(file, text, 0o600))
		if manifest != nil {
			require.NoError(t, os.WriteFile(filepath.Join(dir, manifestFile), manifest, 0o600))
		}
	}
	s := mustOpen(t, testOptions(dir))
	require.NoFileExists(t, file)
	rows := 0
	require.NoError(t, s.View(func(r record.Reader) error {
		return r.Scan(requests, record.ScanOptions{}, func(*registryv1.Record) bool { rows++; return true })
	}))
	require.Equal(t, 100, rows)
}

func TestADamagedRequestsFileIsNoticedAndNamed(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]func([]byte) []byte{
		"its end is cut off": func(text []byte) []byte { return text[:len(text)-1] },
		"it is empty":        func([]byte) []byte { return []byte{} },
		"it is gone":         func([]byte) []byte { return nil },
		"its directory":      func(text []byte) []byte { text[len(text)-requestsFoot-1]++; return text },
		"a block":            func(text []byte) []byte { text[1000]++; return text },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, file := withRequestsFile(t)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.Remove(file))
			if text = how(text); text != nil {
				require.NoError(t, os.WriteFile(file, text, 0o600))
			}
			_, err = Open(testOptions(dir))
			require.ErrorContains(t, err, file)
			require.ErrorContains(t, err, "requests file")
		})
	}
}

// FuzzRequestsFile damages a file: what is read of it then is what was written, or an error.
func FuzzRequestsFile(f *testing.F) {
	_, file := withRequestsFile(f)
	whole, err := os.ReadFile(file)
	require.NoError(f, err)
	read := func(text []byte) (entries []string, err error) {
		err = readRequests(text, func(key []byte, v version, value []byte) error {
			entries = append(entries, fmt.Sprintf("%q %v %q", key, v, value))
			return nil
		})
		return entries, err
	}
	want, err := read(whole)
	require.NoError(f, err)
	f.Add(uint32(0), []byte("X"), uint32(0))
	f.Add(uint32(60), []byte{0xff, 0xff, 0xff, 0xff}, uint32(0))
	f.Add(uint32(len(whole)-16), []byte{0, 0, 0, 0x80}, uint32(0)) //nolint:gosec // it is small
	f.Add(uint32(0), []byte{}, uint32(1))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		text := slices.Clone(whole)
		text = text[:len(text)-min(len(text), int(cut))]
		copy(text[min(len(text), int(at)):], patch[:min(len(patch), 4)]) // So much is noticed for certain.
		got, err := read(text)
		require.LessOrEqual(t, len(got), len(want))
		require.True(t, slices.Equal(want[:len(got)], got))
		if err == nil {
			require.Equal(t, want, got)
		}
	})
}
