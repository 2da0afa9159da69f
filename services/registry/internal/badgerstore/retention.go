package badgerstore

import (
	"sync"
	"sync/atomic"
)

// windowSpans is how finely the retention window moves.
const windowSpans = 256

// window is the retention window. It keeps what old versions may occupy within bounds: an index may
// stand for a few bytes or for a mebibyte of rows, so counting indexes does not bound the disk. Its
// watermark never goes back.
type window struct {
	limit     uint64
	watermark atomic.Uint64

	mu    sync.Mutex
	spans []span
	total uint64
}

// span is how much was written up to an index since the span before.
type span struct{ last, bytes uint64 }

// add notes how much was written at indexes up to last.
func (w *window) add(last, bytes uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total += bytes
	if n := len(w.spans); n > 0 && w.spans[n-1].bytes+bytes <= w.limit/windowSpans {
		w.spans[n-1].last, w.spans[n-1].bytes = last, w.spans[n-1].bytes+bytes
	} else {
		w.spans = append(w.spans, span{last, bytes})
	}
	for w.total > w.limit && len(w.spans) > 1 {
		w.watermark.Store(max(w.watermark.Load(), w.spans[0].last))
		w.total -= w.spans[0].bytes
		w.spans = w.spans[1:]
	}
}

// begin starts anew above a GC watermark.
func (w *window) begin(watermark uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spans, w.total = nil, 0
	w.watermark.Store(watermark)
}
