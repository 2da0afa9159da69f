package badgerstore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// apartTable is the table whose rows lie apart: the outcomes of requests. They are most of what is written, are hardly ever read, are never overwritten,
// and go oldest first. Badger would copy each of them with every compaction.
const apartTable = byte(registryv1.Table_TABLE_REQUEST)

// apart is the file of the rows that are kept apart. It holds their versions as Badger would hold them, and never changes: a flush that brings something
// writes another one, and the mark says which one counts. The file of a store that never had such rows has no name, and nothing in it.
//
// A file is blocks, the directory of them, and a foot. Numbers without a size are uvarints, the others are big endian.
//
//	block      entries in the order of their keys, of one key the newest first; about apartBlock bytes, at least one of them
//	entry      how many bytes its key shares with the key before it in the block; how many follow, and these; the version's
//	           index; its kind, a byte; the size of the encoded row, and the row
//	directory  of each block: its size, its CRC-32C, the size of its first key, and that key
//	foot       the lowest index of a tombstone in the file, all ones when there is none (8 bytes); the directory's size (8);
//	           the CRC-32C of all that follows the blocks up to here (4); apartMagic (4)
//
// The directory is in memory, and all else is read when it is asked for, block by block. Nothing is mapped: what is read once in ten minutes should not count
// as this process's memory. Any number may read. Readers hold on to the file they began with; it is removed when the next one counts, and
// closed when the collector finds that nobody refers to it any more.
type apart struct {
	file *os.File
	// name is the file's in the store's folder.
	name   string
	blocks []apartBlockAt
	// tombstone is the lowest index of a tombstone, math.MaxUint64 when there is none.
	tombstone uint64
}

// apartBlockAt says where a block is, and what is in it.
type apartBlockAt struct {
	at    int64
	size  int
	crc   uint32
	first []byte
}

const (
	apartFiles = "requests-*.rows"
	// apartBlock is how large a block becomes before the next one begins.
	apartBlock = 16 << 10
	// apartBuffer is about how much is written at once.
	apartBuffer = 128 << 10
	apartFoot   = 24
	apartMagic  = "KRA1"
)

// The kinds of versions.
const (
	kindRow = iota
	kindTombstone
	kindDropped
)

var errDamaged = errors.New("it is damaged: checksums or sizes do not match")

// checksum answers the CRC-32C of parts, one after the other.
func checksum(parts ...[]byte) (crc uint32) {
	for _, part := range parts {
		crc = crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), part)
	}
	return crc
}

func newApart() *apart { return &apart{tombstone: math.MaxUint64} }

// openApart opens the file of a name; without a name there is none.
func openApart(dir, name string) (*apart, error) {
	a := newApart()
	if name == "" {
		return a, nil
	}
	path := filepath.Join(dir, name)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, record.Damaged("the rows kept apart in %q are missing", path).Wrap(err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the rows kept apart: %w", err)
	}
	a.file, a.name = file, name
	if err = a.readDirectory(); errors.Is(err, errDamaged) {
		err = record.Damaged("the rows kept apart in %q cannot be read", path).Wrap(err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the rows kept apart in %q: %w", path, err), file.Close())
	}
	return a, nil
}

func (a *apart) readDirectory() error {
	info, err := a.file.Stat()
	if err != nil {
		return fmt.Errorf("ask for its size: %w", err)
	}
	var foot [apartFoot]byte
	if info.Size() < apartFoot {
		return errDamaged
	}
	if _, err := a.file.ReadAt(foot[:], info.Size()-apartFoot); err != nil {
		return fmt.Errorf("read its foot: %w", err)
	}
	above := uint64(info.Size() - apartFoot) //nolint:gosec // not negative
	size := binary.BigEndian.Uint64(foot[8:])
	if string(foot[20:]) != apartMagic || size > above {
		return errDamaged
	}
	text := make([]byte, size)
	end := int64(above - size) //nolint:gosec // less than the file's size
	if _, err := a.file.ReadAt(text, end); err != nil {
		return fmt.Errorf("read its directory: %w", err)
	}
	if checksum(text, foot[:16]) != binary.BigEndian.Uint32(foot[16:]) {
		return errDamaged
	}
	a.tombstone = binary.BigEndian.Uint64(foot[:])
	at := int64(0)
	for in := (parser{rest: text}); len(in.rest) > 0; {
		b := apartBlockAt{at: at, size: in.size(end - at), crc: uint32(in.uvarint())} //nolint:gosec // the rest of it never matches
		b.first = in.bytes()
		if in.failed {
			return errDamaged
		}
		a.blocks = append(a.blocks, b)
		at += int64(b.size)
	}
	if at != end {
		return errDamaged
	}
	return nil
}

// close closes the file for whoever is certain that nobody reads.
func (a *apart) close() error {
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}

// removeApart removes the files of rows kept apart but the one that counts.
func removeApart(dir, name string) error {
	all, err := filepath.Glob(filepath.Join(dir, apartFiles))
	if err != nil {
		return fmt.Errorf("list the files of rows kept apart: %w", err)
	}
	var errs []error
	for _, path := range all {
		if filepath.Base(path) != name {
			errs = append(errs, os.Remove(path))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove old rows kept apart: %w", err)
	}
	return nil
}

// parser reads what is in bytes that may be anything. What is not there it answers as nothing, and has failed.
type parser struct {
	rest   []byte
	failed bool
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.rest)
	if n <= 0 {
		p.rest, p.failed = nil, true
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

// size reads a number that is no more than most.
func (p *parser) size(most int64) int {
	v := p.uvarint()
	if v > uint64(most) { //nolint:gosec // never negative
		p.rest, p.failed = nil, true
		return 0
	}
	return int(v) //nolint:gosec // no more than most
}

// bytes reads a size and as many bytes.
func (p *parser) bytes() []byte {
	n := p.uvarint()
	if n > uint64(len(p.rest)) {
		p.rest, p.failed = nil, true
		return nil
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) byte() byte {
	if len(p.rest) == 0 {
		p.failed = true
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return b
}

// entries goes over all that is in a file. It is for one goroutine.
type entries struct {
	in *apart
	// block is the number of the next block, buffer what was read of the one before it, and of that rest what follows.
	block  int
	buffer []byte
	rest   parser

	// valid says that it stands on an entry. Then the next four are that one's, until it moves.
	valid bool
	key   []byte
	version
	value []byte
	// err is why it came to an end before the file's.
	err error
}

// from answers entries that stand on the first one whose key is at or after a key.
func (a *apart) from(key []byte) *entries {
	after := sort.Search(len(a.blocks), func(i int) bool { return bytes.Compare(a.blocks[i].first, key) >= 0 })
	e := &entries{in: a, block: max(0, after-1)} // The block before may end with the same key.
	for e.next(); e.valid && bytes.Compare(e.key, key) < 0; {
		e.next()
	}
	return e
}

// next moves to the next entry.
func (e *entries) next() {
	e.valid = false
	if e.err != nil {
		return
	}
	if len(e.rest.rest) == 0 {
		if e.block == len(e.in.blocks) {
			return
		}
		if err := e.read(); err != nil {
			e.err = fmt.Errorf("read the rows kept apart in %q: %w", e.in.file.Name(), err)
			return
		}
	}
	p := &e.rest
	shared := p.size(int64(len(e.key)))
	e.key = append(e.key[:shared], p.bytes()...)
	e.index = p.uvarint()
	kind := p.byte()
	e.tombstone, e.dropped = kind == kindTombstone, kind == kindDropped
	e.value = p.bytes()
	if p.failed || kind > kindDropped {
		e.err = fmt.Errorf("read the rows kept apart in %q: %w", e.in.file.Name(), errDamaged)
		return
	}
	e.valid = true
}

// read reads the next block.
func (e *entries) read() error {
	b := e.in.blocks[e.block]
	if cap(e.buffer) < b.size {
		e.buffer = make([]byte, b.size)
	}
	e.buffer = e.buffer[:b.size]
	if _, err := e.in.file.ReadAt(e.buffer, b.at); err != nil {
		return fmt.Errorf("block %d: %w", e.block, err)
	}
	if b.size == 0 || checksum(e.buffer) != b.crc {
		return fmt.Errorf("block %d: %w", e.block, errDamaged)
	}
	e.key, e.rest = e.key[:0], parser{rest: e.buffer}
	e.block++
	return nil
}

// apartRows is a source of the rows in a file.
type apartRows struct {
	*entries
	prefix []byte
	upTo   uint64
	left   []byte
}

// rows answers the rows whose keys have a prefix and are at or after a key, as of an index.
func (a *apart) rows(prefix, from []byte, index uint64) *apartRows {
	r := &apartRows{entries: a.from(from), prefix: prefix, upTo: index}
	r.settle()
	return r
}

// settle moves on to a version that stands.
func (r *apartRows) settle() {
	for r.valid && r.index > r.upTo && bytes.HasPrefix(r.key, r.prefix) {
		r.entries.next()
	}
	r.valid = r.valid && bytes.HasPrefix(r.key, r.prefix)
}

func (r *apartRows) at() []byte {
	if !r.valid {
		return nil
	}
	return r.key
}

func (r *apartRows) next() {
	r.left = append(r.left[:0], r.key...)
	for r.valid && bytes.Equal(r.key, r.left) {
		r.entries.next() // Older versions.
	}
	r.settle()
}

func (r *apartRows) stands() version { return r.version }

func (r *apartRows) row(keysOnly bool) (*registryv1.Record, error) {
	return decodeRow(bytes.Clone(r.value), keysOnly)
}

// find answers a row as of an index, nil when it was dropped, and whether the file says anything of it.
func (a *apart) find(key []byte, index uint64) (row *registryv1.Record, ok bool, err error) {
	r := a.rows(key, key, index)
	if !bytes.Equal(r.at(), key) {
		return nil, false, r.err
	}
	if r.dropped {
		return nil, true, nil
	}
	row, err = r.row(false)
	return row, true, err
}

// apartWriter writes a file. End it with cancel, after finish as well.
type apartWriter struct {
	dir  string
	file *os.File
	out  *bufio.Writer
	// block is what is not written yet, first the key of its first entry and last that of its last one.
	block       []byte
	first, last []byte
	directory   []byte
	tombstone   uint64
}

// newApartWriter begins the file of a flush up to an index. Its name is new, whatever lies in the folder.
func newApartWriter(dir string, index uint64) (*apartWriter, error) {
	file, err := os.CreateTemp(dir, fmt.Sprintf("requests-%016x-*.rows", index))
	if err != nil {
		return nil, fmt.Errorf("make a file for the rows kept apart: %w", err)
	}
	return &apartWriter{dir: dir, file: file, out: bufio.NewWriterSize(file, apartBuffer), tombstone: math.MaxUint64}, nil
}

// put appends a version. Keys come in their order, and versions of a key the newest first.
func (w *apartWriter) put(key []byte, v version, value []byte) error {
	if len(w.block) >= apartBlock {
		if err := w.endBlock(); err != nil {
			return err
		}
	}
	shared := 0
	if len(w.block) == 0 {
		w.first = append(w.first[:0], key...)
	} else {
		for shared < min(len(key), len(w.last)) && key[shared] == w.last[shared] {
			shared++
		}
	}
	w.last = append(w.last[:0], key...)
	kind := byte(kindRow)
	switch {
	case v.dropped:
		kind = kindDropped
	case v.tombstone:
		kind = kindTombstone
		w.tombstone = min(w.tombstone, v.index)
	}
	w.block = binary.AppendUvarint(w.block, uint64(shared)) //nolint:gosec // a length
	w.block = appendSized(w.block, key[shared:])
	w.block = append(binary.AppendUvarint(w.block, v.index), kind)
	w.block = appendSized(w.block, value)
	return nil
}

// follows says whether a key may be put after those that were.
func (w *apartWriter) follows(key []byte) bool { return bytes.Compare(key, w.last) > 0 }

func appendSized(out, b []byte) []byte {
	return append(binary.AppendUvarint(out, uint64(len(b))), b...)
}

func (w *apartWriter) endBlock() error {
	if len(w.block) == 0 {
		return nil
	}
	w.directory = binary.AppendUvarint(w.directory, uint64(len(w.block)))
	w.directory = binary.AppendUvarint(w.directory, uint64(checksum(w.block)))
	w.directory = appendSized(w.directory, w.first)
	if _, err := w.out.Write(w.block); err != nil {
		return fmt.Errorf("write the rows kept apart: %w", err)
	}
	w.block = w.block[:0]
	return nil
}

// finish makes sure that the file is on disk, and opens it. Its name is not, before the folder is synced.
func (w *apartWriter) finish() (*apart, error) {
	if err := w.endBlock(); err != nil {
		return nil, err
	}
	size := uint64(len(w.directory))
	end := binary.BigEndian.AppendUint64(w.directory, w.tombstone)
	end = binary.BigEndian.AppendUint64(end, size)
	end = binary.BigEndian.AppendUint32(end, checksum(end))
	_, err := w.out.Write(append(end, apartMagic...))
	if err == nil {
		err = w.out.Flush()
	}
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		return nil, fmt.Errorf("write the rows kept apart: %w", err)
	}
	a, err := openApart(w.dir, filepath.Base(w.file.Name()))
	if err != nil {
		return nil, err
	}
	written := w.file
	w.file = nil
	if err := written.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("close the rows kept apart: %w", err), a.close())
	}
	return a, nil
}

// cancel removes a file that was not finished. What cannot be removed is when the store is opened, or the next flush is through.
func (w *apartWriter) cancel() {
	if w.file != nil {
		_ = w.file.Close()
		_ = os.Remove(w.file.Name())
	}
}
