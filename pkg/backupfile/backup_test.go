package backupfile_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func manifest(id string, index uint64, base *backupfile.Base) backupfile.Manifest {
	return backupfile.Manifest{
		ID: id, FederationID: "fed", Datacenter: "dc1", DatacenterID: "dc1-id", Index: index, Epoch: 1,
		CreatedAt: time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC), Version: "test", Base: base,
	}
}

func write(t require.TestingT, m backupfile.Manifest, rows []*registryv1.Record) []byte {
	var out bytes.Buffer
	w, err := backupfile.NewWriter(&out, m)
	require.NoError(t, err)
	for _, row := range rows {
		require.NoError(t, w.Write(row))
	}
	_, err = w.Close()
	require.NoError(t, err)
	return out.Bytes()
}

func read(src io.Reader) ([]*registryv1.Record, error) {
	r, err := backupfile.NewReader(src)
	if err != nil {
		return nil, err
	}
	var rows []*registryv1.Record
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
}

func row(i, size int) *registryv1.Record {
	value := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(value) // The same bytes every time; it cannot fail.
	return &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: fmt.Sprintf("local/k%05d", i), Value: value, ModifyIndex: uint64(i + 1)}
}

func TestWhatWasWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rows []*registryv1.Record
		for i := range rapid.IntRange(0, 30).Draw(t, "rows") {
			r := row(i, rapid.SampledFrom([]int{0, 1, 300, 20_000}).Draw(t, "size"))
			r.Table = registryv1.Table(rapid.IntRange(1, 40).Draw(t, "table"))
			r.Deleted = rapid.Bool().Draw(t, "deleted")
			rows = append(rows, r)
		}
		file := write(t, manifest("b1", 7, nil), rows)
		got, err := read(bytes.NewReader(file))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(rows, got, protocmp.Transform()))
	})
}

func TestManyChunksStream(t *testing.T) {
	const count = 300
	rows := make([]*registryv1.Record, count)
	for i := range rows {
		rows[i] = row(i, 32<<10)
	}
	m, seal, err := backupfile.Verify(iotest{bytes.NewReader(write(t, manifest("b1", 9, nil), rows))})
	require.NoError(t, err)
	require.EqualValues(t, 9, m.Index)
	require.Greater(t, seal.Chunks, 5)
	require.EqualValues(t, count, seal.Rows["kv"])
}

// iotest hands out a few bytes at a time.
type iotest struct{ io.Reader }

func (r iotest) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1+len(p)%977)]) }

func TestEveryChangedByteIsFound(t *testing.T) {
	file := write(t, manifest("b1", 7, nil), []*registryv1.Record{row(1, 10), row(2, 700)})
	_, err := read(bytes.NewReader(file))
	require.NoError(t, err)
	for at := range file {
		for _, flip := range []byte{1, 0x80, 0xff} {
			damaged := bytes.Clone(file)
			damaged[at] ^= flip
			_, err := read(bytes.NewReader(damaged))
			require.Error(t, err, "byte %d of %d ^ %x", at, len(file), flip)
			require.Contains(t, []string{backupfile.ReasonDamaged, backupfile.ReasonNewerFormat}, fault.ReasonOf(err), "byte %d: %v", at, err)
		}
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	file := write(t, manifest("b1", 7, nil), []*registryv1.Record{row(1, 10), row(2, 700)})
	_, err := read(bytes.NewReader(file))
	require.NoError(t, err)
	for length := range file {
		_, err := read(bytes.NewReader(file[:length]))
		require.Equal(t, fault.DataLoss, fault.CodeOf(err), "%d of %d bytes: %v", length, len(file), err)
	}
	for _, more := range [][]byte{{0}, file, file[len(file)-74:]} {
		_, err := read(bytes.NewReader(append(bytes.Clone(file), more...)))
		require.Equal(t, fault.DataLoss, fault.CodeOf(err), "%v", err)
	}
}

func TestDamageInALargeFileIsFound(t *testing.T) {
	rows := make([]*registryv1.Record, 100)
	for i := range rows {
		rows[i] = row(i, 12<<10)
	}
	file := write(t, manifest("b1", 7, nil), rows)
	_, err := read(bytes.NewReader(file))
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		damaged := bytes.Clone(file)
		damaged[rapid.IntRange(0, len(file)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		_, err := read(bytes.NewReader(damaged[:rapid.IntRange(len(file)/2, len(file)).Draw(t, "length")]))
		require.Error(t, err)
	})
}

func TestAnyTarListsABackup(t *testing.T) {
	var rows []*registryv1.Record
	for i := range 100 {
		rows = append(rows, row(i, 32<<10))
	}
	file := write(t, manifest("b1", 7, nil), rows)
	zip, err := gzip.NewReader(bytes.NewReader(file))
	require.NoError(t, err)
	names := []string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		names = append(names, header.Name)
	}
	require.Equal(t, "manifest.json", names[0], "any tar reads it")
	require.Equal(t, "seal.json", names[len(names)-1])
	require.True(t, strings.HasPrefix(names[1], "rows/000001-"))
}

func TestAnEncryptedBackupTakesItsKey(t *testing.T) {
	own, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	other, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	recipients, err := backupfile.ParseRecipients("--recipient", []string{own.Recipient().String()})
	require.NoError(t, err)
	var sealed bytes.Buffer
	w, err := backupfile.Encrypt(&sealed, recipients)
	require.NoError(t, err)
	_, err = w.Write(write(t, manifest("b1", 7, nil), []*registryv1.Record{row(1, 500)}))
	require.NoError(t, err)
	require.NoError(t, w.Close())

	open := func(file []byte, identities ...age.Identity) error {
		plain, encrypted, err := backupfile.Decrypt(bytes.NewReader(file), identities)
		if err != nil {
			return err
		}
		require.True(t, encrypted)
		_, err = read(plain)
		return err
	}
	require.NoError(t, open(sealed.Bytes(), own))
	require.Equal(t, backupfile.ReasonEncrypted, fault.ReasonOf(open(sealed.Bytes())))
	_, err = backupfile.NewReader(bytes.NewReader(sealed.Bytes()))
	require.Equal(t, backupfile.ReasonEncrypted, fault.ReasonOf(err), "a registry has no keys, and says so")
	require.Equal(t, backupfile.ReasonEncrypted, fault.ReasonOf(open(sealed.Bytes(), other)))
	for at := len("age-encryption.org/"); at < sealed.Len(); at++ {
		damaged := bytes.Clone(sealed.Bytes())
		damaged[at] ^= 1
		require.Error(t, open(damaged, own), "byte %d", at)
		require.Error(t, open(sealed.Bytes()[:at], own), "%d bytes", at)
	}

	path := filepath.Join(t.TempDir(), "key.txt")
	require.NoError(t, os.WriteFile(path, []byte("# created\n"+own.String()+"\n"), 0o600))
	identities, err := backupfile.ReadIdentities("--identity", path)
	require.NoError(t, err)
	require.NoError(t, open(sealed.Bytes(), identities...))
	_, err = backupfile.ParseRecipients("--recipient", []string{"age1nonsense"})
	require.Equal(t, fault.InvalidArgument, fault.CodeOf(err))
}

func TestANewerFormatIsRefusedByName(t *testing.T) {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	archive := tar.NewWriter(zip)
	text := `{"format": 2, "version": "v9"}`
	require.NoError(t, archive.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o600, Size: int64(len(text))}))
	_, err := archive.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, archive.Close())
	require.NoError(t, zip.Close())
	file := append(out.Bytes(), make([]byte, 100)...)
	_, err = backupfile.NewReader(bytes.NewReader(file))
	require.Equal(t, backupfile.ReasonNewerFormat, fault.ReasonOf(err), "%v", err)
}

func TestAChainIsAFullBackupAndItsIncrementsInOrder(t *testing.T) {
	full := manifest("a", 10, nil)
	first := manifest("b", 20, &backupfile.Base{ID: "a", Index: 10})
	second := manifest("c", 30, &backupfile.Base{ID: "b", Index: 20})
	foreign := second
	foreign.DatacenterID = "other"
	for name, c := range map[string]struct {
		chain []backupfile.Manifest
		good  bool
	}{
		"one":              {[]backupfile.Manifest{full}, true},
		"three":            {[]backupfile.Manifest{full, first, second}, true},
		"none":             {nil, false},
		"no base":          {[]backupfile.Manifest{first, second}, false},
		"a gap":            {[]backupfile.Manifest{full, second}, false},
		"the wrong order":  {[]backupfile.Manifest{full, second, first}, false},
		"two full backups": {[]backupfile.Manifest{full, full}, false},
		"foreign":          {[]backupfile.Manifest{full, first, foreign}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := backupfile.CheckChain(c.chain)
			if c.good {
				require.NoError(t, err)
				return
			}
			require.Equal(t, backupfile.ReasonBrokenChain, fault.ReasonOf(err))
		})
	}
}

func FuzzReader(f *testing.F) {
	f.Add(write(f, manifest("b1", 7, nil), []*registryv1.Record{row(1, 10)}))
	f.Add(write(f, manifest("b1", 7, &backupfile.Base{ID: "x", Index: 2}), nil))
	f.Add([]byte("age-encryption.org/v1\n"))
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	f.Fuzz(func(t *testing.T, file []byte) {
		rows, err := read(bytes.NewReader(file))
		if err != nil {
			require.NotEmpty(t, fault.ReasonOf(err), "%v", err)
			return
		}
		// What is accepted is what the writer would write of it.
		m, _, err := backupfile.Verify(bytes.NewReader(file))
		require.NoError(t, err)
		again, err := read(bytes.NewReader(write(t, m, rows)))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(rows, again, protocmp.Transform()))
	})
}
