package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"konsul.dev/services/registry/internal/record"
)

// Earlier versions kept the rows of TABLE_REQUEST in a sorted file beside Badger's, which every
// flush wrote anew. What it holds moves into Badger when the store is opened. Numbers without a
// size are uvarints, the others are big endian.
//
//	block      entries in the order of their keys, of one key the newest first
//	entry      how many bytes its key shares with the key before it in the block; how many follow, and these; the
//	           version's index; its kind, a byte; the size of the encoded row, and the row
//	directory  of each block: its size, its CRC-32C, the size of its first key, and that key
//	foot       an index (8 bytes); the directory's size (8); the CRC-32C of the directory and of the foot so far (4);
//	           requestsMagic (4)
const (
	requestsFiles = "requests-*.rows"
	requestsFoot  = 24
	requestsMagic = "KRA1"
)

// The kinds of entries.
const (
	kindRow = iota
	kindTombstone
	kindDropped
)

var errDamaged = errors.New("it is damaged: checksums or sizes do not match")

// adoptRequests moves what a requests file holds into Badger. The caller syncs Badger and replaces
// the manifest, which names the file; cut short before that, it is done again.
func (s *Store) adoptRequests(name string) error {
	path := filepath.Join(s.opts.Dir, name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record.Damaged("the requests file %q is missing", path).Wrap(err)
	}
	if err != nil {
		return fmt.Errorf("read the requests file: %w", err)
	}
	out := s.newWriter()
	defer out.cancel()
	err = readRequests(text, func(key []byte, v version, value []byte) error {
		return out.put(bytes.Clone(key), v, value)
	})
	if errors.Is(err, errDamaged) {
		return record.Damaged("the requests file %q cannot be read", path).Wrap(err)
	}
	if err == nil {
		err = out.flush()
	}
	if err != nil {
		return fmt.Errorf("adopt the requests file %q: %w", path, err)
	}
	return nil
}

// removeRequests removes the requests files, which no manifest names any more.
func removeRequests(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, requestsFiles))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return fmt.Errorf("remove requests files: %w", err)
	}
	return nil
}

// readRequests calls fn for each entry of a requests file. The key is good until the next call.
func readRequests(text []byte, fn func(key []byte, v version, value []byte) error) error {
	if len(text) < requestsFoot {
		return errDamaged
	}
	above, foot := text[:len(text)-requestsFoot], text[len(text)-requestsFoot:]
	size := binary.BigEndian.Uint64(foot[8:])
	if string(foot[20:]) != requestsMagic || size > uint64(len(above)) {
		return errDamaged
	}
	blocks, directory := above[:len(above)-int(size)], above[len(above)-int(size):] //nolint:gosec // not more than above
	if crc32.Update(checksum(directory), castagnoli(), foot[:16]) != binary.BigEndian.Uint32(foot[16:]) {
		return errDamaged
	}
	for d := (parser{rest: directory}); len(d.rest) > 0; {
		n, crc := d.uvarint(), d.uvarint()
		d.bytes()
		if d.failed || n > uint64(len(blocks)) || uint64(checksum(blocks[:n])) != crc {
			return errDamaged
		}
		if err := readBlock(blocks[:n], fn); err != nil {
			return err
		}
		blocks = blocks[n:]
	}
	if len(blocks) > 0 {
		return errDamaged
	}
	return nil
}

func readBlock(block []byte, fn func(key []byte, v version, value []byte) error) error {
	var key []byte
	for p := (parser{rest: block}); len(p.rest) > 0; {
		shared := p.uvarint()
		if shared > uint64(len(key)) {
			return errDamaged
		}
		key = append(key[:shared], p.bytes()...)
		index, kind, value := p.uvarint(), p.byte(), p.bytes()
		if p.failed || kind > kindDropped || len(key) == 0 {
			return errDamaged
		}
		if err := fn(key, version{index, kind == kindTombstone, kind == kindDropped}, value); err != nil {
			return err
		}
	}
	return nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }

// parser reads what is in bytes that may be anything. What is not there reads as nothing, and it
// has failed.
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
