package backupfile

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/encoding/protodelim"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

const (
	// chunkBytes is when a chunk is full; the row that fills it may be up to maxRowBytes.
	chunkBytes   = 1 << 20
	maxRowBytes  = 16 << 20
	maxMetaBytes = 1 << 20

	manifestName = "manifest.json"
	sealName     = "seal.json"
)

// gzipHeader is the one header a member may begin with: nothing in a file is left to chance.
func gzipHeader() []byte { return []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255} }

// trailer is an empty gzip member that carries a hash.
func trailer(sum []byte) []byte {
	b := []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 4 + sha256.Size, 0, 'K', 'S', sha256.Size, 0}
	b = append(b, sum...)
	return append(b, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

const trailerBytes = 16 + sha256.Size + 10

// chunkName returns a chunk's name, which says what must be in it.
func chunkName(n int, content []byte) string {
	sum := sha256.Sum256(content)
	return fmt.Sprintf("rows/%06d-%s.pb", n, hex.EncodeToString(sum[:]))
}

// chain is the hash over the manifest and all chunks.
type chain struct{ hash.Hash }

func newChain(manifest []byte) chain {
	c := chain{sha256.New()}
	c.add(string(manifest))
	return c
}

func (c chain) add(text string) { _, _ = fmt.Fprintf(c, "%d:%s\n", len(text), text) }

func (c chain) sum() string { return hex.EncodeToString(c.Sum(nil)) }

// Writer writes a backup. Without Close there is none.
type Writer struct {
	out     io.Writer
	whole   hash.Hash
	zip     *gzip.Writer
	tar     *tar.Writer
	chunk   bytes.Buffer
	chain   chain
	created time.Time
	seal    Seal
}

// NewWriter begins a backup with its manifest, whose Format it sets.
func NewWriter(out io.Writer, m Manifest) (*Writer, error) {
	m.Format = Format
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	if _, err := parseManifest(text); err != nil {
		return nil, err
	}
	whole := sha256.New()
	zip, err := gzip.NewWriterLevel(io.MultiWriter(out, whole), gzip.DefaultCompression)
	if err != nil {
		return nil, fmt.Errorf("begin compression: %w", err)
	}
	zip.ModTime = time.Unix(0, 0) // The format's word for none; the zero Time is another.
	w := &Writer{
		out: out, whole: whole, zip: zip, tar: tar.NewWriter(zip), chain: newChain(text), created: m.CreatedAt.Truncate(time.Second),
		seal: Seal{Rows: map[string]uint64{}, Tombstones: map[string]uint64{}},
	}
	return w, w.entry(manifestName, text)
}

func (w *Writer) entry(name string, content []byte) error {
	err := w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: w.created, Format: tar.FormatUSTAR})
	if err == nil {
		_, err = w.tar.Write(content)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Write adds a row or a tombstone.
func (w *Writer) Write(row *registryv1.Record) error {
	if _, err := protodelim.MarshalTo(&w.chunk, row); err != nil {
		return fmt.Errorf("encode row: %w", err)
	}
	if row.GetDeleted() {
		w.seal.Tombstones[TableName(row.GetTable())]++
	} else {
		w.seal.Rows[TableName(row.GetTable())]++
	}
	if w.chunk.Len() < chunkBytes {
		return nil
	}
	return w.flush()
}

func (w *Writer) flush() error {
	if w.chunk.Len() == 0 {
		return nil
	}
	w.seal.Chunks++
	w.seal.Bytes += uint64(w.chunk.Len()) //nolint:gosec // a length
	name := chunkName(w.seal.Chunks, w.chunk.Bytes())
	w.chain.add(name)
	err := w.entry(name, w.chunk.Bytes())
	w.chunk.Reset()
	return err
}

// Close writes what is left and the seal. It does not close what it writes to.
func (w *Writer) Close() (Seal, error) {
	if err := w.flush(); err != nil {
		return Seal{}, err
	}
	w.seal.SHA256 = w.chain.sum()
	text, err := json.MarshalIndent(w.seal, "", "  ")
	if err != nil {
		return Seal{}, fmt.Errorf("encode seal: %w", err)
	}
	if err := w.entry(sealName, text); err != nil {
		return Seal{}, err
	}
	if err := w.tar.Close(); err != nil {
		return Seal{}, fmt.Errorf("end archive: %w", err)
	}
	if err := w.zip.Close(); err != nil {
		return Seal{}, fmt.Errorf("end compression: %w", err)
	}
	if _, err := w.out.Write(trailer(w.whole.Sum(nil))); err != nil {
		return Seal{}, fmt.Errorf("write checksum: %w", err)
	}
	return w.seal, nil
}

// TableName is how a table is called in a seal: "kv", "acl_token".
func TableName(table registryv1.Table) string {
	if name, ok := strings.CutPrefix(table.String(), "TABLE_"); ok {
		return strings.ToLower(name)
	}
	return fmt.Sprintf("table_%d", table) // Of a newer version.
}
