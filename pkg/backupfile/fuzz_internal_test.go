package backupfile

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protodelim"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// wrap makes a file whose checksums are right of entries that may be anything: what only somebody
// who forges a backup can send, and what no fuzzer finds by flipping bits.
func wrap(t require.TestingT, entries ...[2][]byte) []byte {
	var out bytes.Buffer
	whole := sha256.New()
	zip, err := gzip.NewWriterLevel(io.MultiWriter(&out, whole), gzip.NoCompression)
	require.NoError(t, err)
	zip.ModTime = time.Unix(0, 0)
	archive := tar.NewWriter(zip)
	for _, e := range entries {
		require.NoError(t, archive.WriteHeader(&tar.Header{Name: string(e[0]), Mode: 0o600, Size: int64(len(e[1])), Format: tar.FormatUSTAR}))
		_, err = archive.Write(e[1])
		require.NoError(t, err)
	}
	require.NoError(t, archive.Close())
	require.NoError(t, zip.Close())
	out.Write(trailer(whole.Sum(nil)))
	return out.Bytes()
}

// sealed returns a seal that fits, as far as rows can be read.
func sealed(t require.TestingT, manifest []byte, chunks ...[]byte) []byte {
	seal := Seal{Rows: map[string]uint64{}, Tombstones: map[string]uint64{}}
	c := newChain(manifest)
	for _, chunk := range chunks {
		seal.Chunks++
		seal.Bytes += uint64(len(chunk))
		c.add(chunkName(seal.Chunks, chunk))
		for in := bytes.NewReader(chunk); in.Len() > 0; {
			row := &registryv1.Record{}
			if protodelim.UnmarshalFrom(in, row) != nil {
				break
			}
			if row.GetDeleted() {
				seal.Tombstones[TableName(row.GetTable())]++
			} else {
				seal.Rows[TableName(row.GetTable())]++
			}
		}
	}
	seal.SHA256 = c.sum()
	text, err := json.Marshal(seal)
	require.NoError(t, err)
	return text
}

func good() []byte {
	text, _ := json.Marshal(Manifest{Format: Format, ID: "b1", Datacenter: "dc1", Index: 7}) // It cannot fail.
	return text
}

func TestAForgedBackupWithRightChecksumsIsReadOrRefused(t *testing.T) {
	rows := func(rows ...*registryv1.Record) []byte {
		var out bytes.Buffer
		for _, row := range rows {
			_, err := protodelim.MarshalTo(&out, row)
			require.NoError(t, err)
		}
		return out.Bytes()
	}
	chunk := rows(&registryv1.Record{Table: 1, Key: "local/a"}, &registryv1.Record{Table: 1, Key: "local/b", Deleted: true})
	name := func(n int, content []byte) []byte { return []byte(chunkName(n, content)) }
	m, seal := []byte(manifestName), []byte(sealName)
	for what, c := range map[string]struct {
		entries [][2][]byte
		good    bool
	}{
		"good":               {[][2][]byte{{m, good()}, {name(1, chunk), chunk}, {seal, sealed(t, good(), chunk)}}, true},
		"no rows":            {[][2][]byte{{m, good()}, {seal, sealed(t, good())}}, true},
		"no seal":            {[][2][]byte{{m, good()}, {name(1, chunk), chunk}}, false},
		"no manifest":        {[][2][]byte{{name(1, chunk), chunk}, {seal, sealed(t, good(), chunk)}}, false},
		"two manifests":      {[][2][]byte{{m, good()}, {m, good()}, {seal, sealed(t, good())}}, false},
		"the wrong number":   {[][2][]byte{{m, good()}, {name(2, chunk), chunk}, {seal, sealed(t, good(), chunk)}}, false},
		"another's seal":     {[][2][]byte{{m, good()}, {name(1, chunk), chunk}, {seal, sealed(t, good())}}, false},
		"rows after the end": {[][2][]byte{{m, good()}, {seal, sealed(t, good())}, {name(1, chunk), chunk}}, false},
		"an empty chunk":     {[][2][]byte{{m, good()}, {name(1, nil), nil}, {seal, sealed(t, good(), nil)}}, false},
		"half a row":         {[][2][]byte{{m, good()}, {name(1, chunk[:3]), chunk[:3]}, {seal, sealed(t, good(), chunk[:3])}}, false},
		"a way out":          {[][2][]byte{{m, good()}, {[]byte("../../etc/passwd"), []byte("x")}, {seal, sealed(t, good())}}, false},
		"a huge manifest":    {[][2][]byte{{m, append(bytes.Repeat([]byte(" "), maxMetaBytes+1), good()...)}, {seal, sealed(t, good())}}, false},
		"a manifest of none": {[][2][]byte{{m, []byte("{}")}, {seal, sealed(t, []byte("{}"))}}, false},
	} {
		t.Run(what, func(t *testing.T) {
			_, _, err := Verify(bytes.NewReader(wrap(t, c.entries...)))
			if c.good {
				require.NoError(t, err)
				return
			}
			require.Equal(t, ReasonDamaged, fault.ReasonOf(err), "%v", err)
		})
	}
}

// FuzzForged looks behind the checksums.
func FuzzForged(f *testing.F) {
	var rows bytes.Buffer
	for _, row := range []*registryv1.Record{{Table: 1, Key: "local/a", Value: []byte("v")}, {Table: 5, Key: "x", Deleted: true}} {
		_, err := protodelim.MarshalTo(&rows, row)
		require.NoError(f, err)
	}
	f.Add(good(), rows.Bytes(), []byte{}, "rows/000001-")
	f.Add(good(), []byte{}, sealed(f, good()), "")
	f.Add([]byte(`{"format":1,"id":"x","datacenter":"d","index":1,"base":{"id":"y","index":2}}`), []byte{1, 0}, []byte("{}"), "../x")
	f.Fuzz(func(t *testing.T, manifest, chunk, seal []byte, name string) {
		if name == "" || len(name) > 90 || strings.HasSuffix(name, "/") || strings.ContainsRune(name, 0) {
			name = chunkName(1, chunk)
		}
		if len(seal) == 0 {
			seal = sealed(t, manifest, chunk)
		}
		for _, r := range name {
			if r > 0x7f {
				return // A USTAR header carries ASCII alone.
			}
		}
		file := wrap(t, [2][]byte{[]byte(manifestName), manifest}, [2][]byte{[]byte(name), chunk}, [2][]byte{[]byte(sealName), seal})
		r, err := NewReader(bytes.NewReader(file))
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, io.EOF) {
			require.NotEmpty(t, fault.ReasonOf(err), "%v", err)
			return
		}
		require.NotZero(t, r.Manifest().Index)
		require.Equal(t, 1, r.Seal().Chunks)
	})
}

// FuzzDecrypt gives the door before the reader anything.
func FuzzDecrypt(f *testing.F) {
	own, err := age.ParseX25519Identity("AGE-SECRET-KEY-1LDPDAHPMJ6J6CEJN9JEHU6XVTFEWHJ64AM4DN9ZSJ0388JDCYZLQTCHM05")
	require.NoError(f, err)
	var out bytes.Buffer
	w, err := Encrypt(&out, []age.Recipient{own.Recipient()})
	require.NoError(f, err)
	_, err = w.Write(wrap(f, [2][]byte{[]byte(manifestName), good()}, [2][]byte{[]byte(sealName), sealed(f, good())}))
	require.NoError(f, err)
	require.NoError(f, w.Close())
	f.Add(out.Bytes())
	f.Add([]byte("age-encryption.org/v1\n-> X25519 \n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, file []byte) {
		plain, _, err := Decrypt(bytes.NewReader(file), []age.Identity{own})
		if err == nil {
			_, _, err = Verify(plain)
		}
		if err != nil {
			require.NotEmpty(t, fault.ReasonOf(err), "%v", err)
		}
	})
}
