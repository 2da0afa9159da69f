package backupfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
)

// held passes a file on but for its trailer, and hashes what it passes: a reader cannot know which
// bytes are the last until there are no more.
type held struct {
	src   io.Reader
	whole hash.Hash
	// buf[from:to] was read and not passed on yet.
	buf      []byte
	from, to int
	// failed is the source's own error, which is not the file's fault.
	failed error
}

func newHeld(src io.Reader) *held {
	return &held{src: src, whole: sha256.New(), buf: make([]byte, 64<<10)}
}

// Read implements io.Reader.
func (h *held) Read(p []byte) (int, error) {
	for h.to-h.from <= trailerBytes {
		h.to, h.from = copy(h.buf, h.buf[h.from:h.to]), 0
		n, err := h.src.Read(h.buf[h.to:])
		h.to += n
		switch {
		case n > 0:
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case err != nil:
			h.failed = err
			return 0, err
		}
	}
	n := copy(p, h.buf[h.from:h.to-trailerBytes])
	_, _ = h.whole.Write(p[:n])
	h.from += n
	return n, nil
}

// check reports whether the file ended with its own checksum.
func (h *held) check() error {
	if !bytes.Equal(h.buf[h.from:h.to], trailer(h.whole.Sum(nil))) {
		return Damaged("its checksum does not match")
	}
	return nil
}
