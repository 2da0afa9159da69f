package registrytest

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// wire carries the connections to one address, until it is cut.
type wire struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
	// left is how many bytes still pass before what moves stands still; negative: any number.
	left  int
	moved *sync.Cond
}

// layWire returns a wire to an address, and where it begins.
func layWire(t testing.TB, to string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{listener: listener, to: to, conns: map[net.Conn]struct{}{}, left: -1}
	w.moved = sync.NewCond(&w.mu)
	var serving sync.WaitGroup
	serving.Go(w.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		w.set(true)
		serving.Wait()
	})
	return w
}

func (w *wire) address() string { return w.listener.Addr().String() }

func (w *wire) serve() {
	var carrying sync.WaitGroup
	defer carrying.Wait()
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", w.to)
		if err != nil || !w.keep(near, far) {
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
			continue
		}
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			carrying.Go(func() {
				w.carry(pair[0], pair[1])
				w.drop(near, far)
			})
		}
	}
}

func (w *wire) carry(to, from net.Conn) {
	piece := make([]byte, 16<<10)
	for {
		n, err := from.Read(piece)
		if err != nil || !w.pass(n, from) {
			return
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}

// pass waits while the connection stands still; false when it has ended.
func (w *wire) pass(n int, on net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left >= 0 && w.left < n {
		for w.has(on) {
			w.moved.Wait()
		}
	}
	if w.left >= 0 {
		w.left = max(0, w.left-n)
	}
	return w.has(on)
}

func (w *wire) has(conn net.Conn) bool {
	_, open := w.conns[conn]
	return open && !w.cut
}

// stall lets so many bytes pass. A connection that has more to carry then stands still for good,
// open; negative: none does from now on.
func (w *wire) stall(left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = left
}

func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.conns[c] = struct{}{}
	}
	return !w.cut
}

func (w *wire) drop(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(w.conns, c)
	}
	w.moved.Broadcast()
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	w.moved.Broadcast()
	for c := range w.conns {
		if cut {
			_ = c.Close()
		}
	}
}
