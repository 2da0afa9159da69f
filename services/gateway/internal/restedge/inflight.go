package restedge

import (
	"io"
	"sync"
	"time"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

// tokenShare is the part of the bytes in flight that the calls of one token may take.
const tokenShare = 4

// inflight counts the bytes of requests that an edge holds, together and for each token. Safe for
// concurrent use.
type inflight struct {
	most, share int64
	met         func(limit string)

	mu    sync.Mutex
	total int64
	// of has the bytes of each token, by its accessor; "" is everybody who has none.
	of map[string]int64
}

func newInflight(most, largest int64, met func(limit string)) *inflight {
	return &inflight{most: most, share: max(most/tokenShare, largest), met: met, of: map[string]int64{}}
}

// hold returns what counts the bytes of one call.
func (f *inflight) hold(accessor string) *hold { return &hold{of: f, accessor: accessor} }

// hold is what one call holds. Safe for concurrent use.
type hold struct {
	of       *inflight
	accessor string
	// bytes and ended are guarded by of.mu.
	bytes int64
	ended bool
}

// take counts n bytes more, or answers why they are too many.
func (h *hold) take(n int64) error {
	f := h.of
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.ended {
		return nil // What comes now is dropped.
	}
	whose := "all calls"
	if f.of[h.accessor]+n > f.share {
		whose = "the calls of this token"
	} else if f.total+n <= f.most {
		f.add(h, n)
		return nil
	}
	f.met("inflight_bytes")
	return fault.New(fault.ResourceExhausted, rpc.ReasonInflightLimit, "requests of %s hold too many bytes already", whose).
		WithRetryAfter(time.Second).WithRemedy("send less at once, or raise gateway.max_inflight_bytes")
}

// give gives n bytes back.
func (h *hold) give(n int64) {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.of.add(h, -min(n, h.bytes))
}

// end gives all back.
func (h *hold) end() {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.of.add(h, -h.bytes)
	h.ended = true
}

// add is called with mu held.
func (f *inflight) add(h *hold, n int64) {
	h.bytes += n
	f.total += n
	if f.of[h.accessor] += n; f.of[h.accessor] == 0 {
		delete(f.of, h.accessor)
	}
}

// counted reads a body and counts what it brings.
type counted struct {
	io.Reader
	hold *hold
}

// Read implements io.Reader.
func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if refused := c.hold.take(int64(n)); refused != nil {
		return 0, refused
	}
	return n, err
}
