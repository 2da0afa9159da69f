package backupfile

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"

	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/encoding/protodelim"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Reader reads a backup. What it hands out is to be trusted only once Next has returned io.EOF.
type Reader struct {
	src      *held
	in       *bufio.Reader
	zip      *gzip.Reader
	tar      *tar.Reader
	manifest Manifest
	chain    chain
	chunk    *bytes.Reader
	seen     Seal
	seal     *Seal
	failed   error
}

// NewReader begins to read a backup and returns a fault when it is none, or not one for this
// program.
func NewReader(src io.Reader) (*Reader, error) {
	r := &Reader{src: newHeld(src), seen: Seal{Rows: map[string]uint64{}, Tombstones: map[string]uint64{}}}
	r.in = bufio.NewReaderSize(r.src, 64<<10)
	if beginning, _ := r.in.Peek(len(ageHeader)); Encrypted(beginning) {
		return nil, fault.New(fault.FailedPrecondition, ReasonEncrypted, "the backup is encrypted").WithField("file").
			WithRemedy("decrypt it first, with `age -d` or by `konsulctl backup restore --identity`")
	}
	header, err := r.in.Peek(len(gzipHeader()))
	if err != nil || !bytes.Equal(header, gzipHeader()) {
		return nil, r.why(err, "it does not begin as one")
	}
	zip, err := gzip.NewReader(r.in)
	if err != nil {
		return nil, r.why(err, "it cannot be decompressed")
	}
	zip.Multistream(false)
	r.zip = zip
	r.tar = tar.NewReader(zip)
	name, text, err := r.entry()
	if err != nil {
		return nil, err
	}
	if name != manifestName {
		return nil, Damaged("it begins with %q", name)
	}
	if r.manifest, err = parseManifest(text); err != nil {
		return nil, err
	}
	r.chain = newChain(text)
	return r, nil
}

// why is the fault of a read that failed: the source's own if it had one.
func (r *Reader) why(err error, what string) error {
	if r.src.failed != nil {
		return r.src.failed
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return Damaged("%s: %v", what, err)
	}
	return Damaged("%s", what)
}

// Manifest says what the backup is of.
func (r *Reader) Manifest() Manifest { return r.manifest }

// Seal returns the totals; they are there once Next has returned io.EOF.
func (r *Reader) Seal() Seal {
	if r.seal == nil {
		return Seal{}
	}
	return *r.seal
}

// entry reads the next file of the archive.
func (r *Reader) entry() (string, []byte, error) {
	header, err := r.tar.Next()
	if err != nil {
		return "", nil, r.why(err, "it ends too early")
	}
	limit := int64(maxMetaBytes)
	if strings.HasPrefix(header.Name, "rows/") {
		limit = chunkBytes + maxRowBytes
	}
	if header.Typeflag != tar.TypeReg || header.Size > limit {
		return "", nil, Damaged("%q has no place in it", header.Name)
	}
	content := bytes.NewBuffer(make([]byte, 0, min(header.Size, chunkBytes)+bytes.MinRead))
	if _, err := content.ReadFrom(r.tar); err != nil {
		return "", nil, r.why(err, header.Name)
	}
	return header.Name, content.Bytes(), nil
}

// Next returns the next row or tombstone, in table and key order, and io.EOF when the backup has
// ended and was whole.
func (r *Reader) Next() (*registryv1.Record, error) {
	if r.failed != nil {
		return nil, r.failed
	}
	row, err := r.next()
	r.failed = err
	return row, err
}

func (r *Reader) next() (*registryv1.Record, error) {
	for r.chunk == nil || r.chunk.Len() == 0 {
		name, content, err := r.entry()
		if err != nil {
			return nil, err
		}
		if name == sealName {
			return nil, r.finish(content)
		}
		r.seen.Chunks++
		r.seen.Bytes += uint64(len(content))
		if name != chunkName(r.seen.Chunks, content) || len(content) == 0 {
			return nil, Damaged("%q does not hold what its name says", name)
		}
		r.chain.add(name)
		r.chunk = bytes.NewReader(content)
	}
	row := &registryv1.Record{}
	if err := (protodelim.UnmarshalOptions{MaxSize: maxRowBytes}).UnmarshalFrom(r.chunk, row); err != nil {
		return nil, Damaged("a row of chunk %d cannot be decoded: %v", r.seen.Chunks, err)
	}
	if row.GetDeleted() {
		r.seen.Tombstones[TableName(row.GetTable())]++
	} else {
		r.seen.Rows[TableName(row.GetTable())]++
	}
	return row, nil
}

// finish compares what was read with the seal and the checksum, and returns io.EOF when they agree.
func (r *Reader) finish(text []byte) error {
	var seal Seal
	if err := json.Unmarshal(text, &seal); err != nil {
		return Damaged("the seal cannot be read: %v", err)
	}
	r.seen.SHA256 = r.chain.sum()
	same := seal.Chunks == r.seen.Chunks && seal.Bytes == r.seen.Bytes && seal.SHA256 == r.seen.SHA256 &&
		maps.Equal(seal.Rows, r.seen.Rows) && maps.Equal(seal.Tombstones, r.seen.Tombstones)
	if !same {
		return Damaged("the seal is of other rows")
	}
	if _, err := r.tar.Next(); !errors.Is(err, io.EOF) {
		return r.why(err, "it goes on behind the seal")
	}
	// The rest of the compressed member, its checksum included: tar stops reading before it.
	if _, err := io.Copy(io.Discard, r.zip); err != nil {
		return r.why(err, "its end cannot be read")
	}
	if _, err := r.in.ReadByte(); !errors.Is(err, io.EOF) {
		return r.why(err, "it goes on behind its end")
	}
	if err := r.src.check(); err != nil {
		return err
	}
	r.seal = &seal
	return io.EOF
}

// Verify reads a backup to its end.
func Verify(src io.Reader) (Manifest, Seal, error) {
	r, err := NewReader(src)
	if err != nil {
		return Manifest{}, Seal{}, err
	}
	for {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Manifest(), r.Seal(), nil
		}
		if err != nil {
			return r.Manifest(), Seal{}, err
		}
	}
}
