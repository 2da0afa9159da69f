// Package splice joins two connections so that each hears what the other says.
//
// Between two TCP connections on Linux the kernel moves the bytes, splice(2), without copying them
// through this process. Bytes are counted while the connections live. An end that closes one direction
// closes it for the other end too and may go on listening. Run belongs to one goroutine for each pair.
package splice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	// tick is how often a direction looks up: to count, and to see whether it is still wanted.
	tick = time.Second
	// chunk is the most bytes moved between two counts.
	chunk = 1 << 20
	// quiet is how long a connection must have carried nothing to be closed while draining: no request
	// is in flight on it, most likely, and its client opens another elsewhere.
	quiet = time.Second

	bufferSize = 32 << 10
)

// ErrIdle means nothing was said for Options.Idle.
var ErrIdle = errors.New("connection idle for too long")

// Options shape a pair.
type Options struct {
	// Idle is how long both directions may be silent.
	Idle time.Duration
	// Forward and Backward count bytes from a to b, and from b to a; called from different goroutines.
	Forward, Backward func(n int64)
	// Draining, once closed, asks for an end at the first quiet moment.
	Draining <-chan struct{}
}

// Run copies both ways until both directions have ended, one fails, or ctx ends. It closes both
// connections. An orderly end is no error.
func Run(ctx context.Context, a, b net.Conn, o Options) error {
	p := &pair{Options: o}
	p.last.Store(time.Now().UnixNano())
	closeBoth := func() {
		_ = a.Close()
		_ = b.Close()
	}
	defer closeBoth()
	defer context.AfterFunc(ctx, closeBoth)()

	results := make(chan error, 2)
	go func() { results <- p.copy(b, a, o.Forward) }()
	go func() { results <- p.copy(a, b, o.Backward) }()
	first := <-results
	if first != nil {
		closeBoth()
	}
	second := <-results
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(first, errDrained):
		return nil
	case first != nil:
		return first
	default:
		return second
	}
}

var errDrained = errors.New("closed while draining")

type pair struct {
	Options

	last atomic.Int64 // when either direction last carried something, Unix nanoseconds
}

// copy moves bytes from src to dst until src has no more, then closes that direction of dst.
func (p *pair) copy(dst, src net.Conn, count func(int64)) error {
	move := mover(dst, src)
	for {
		now := time.Now()
		writeBy := now.Add(p.Idle + tick)
		if err := errors.Join(src.SetReadDeadline(now.Add(tick)), dst.SetWriteDeadline(writeBy)); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		n, err := move()
		if n > 0 {
			count(n)
			p.last.Store(time.Now().UnixNano())
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return closeWrite(dst)
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(writeBy):
			if err := p.stillWanted(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("copy: %w", err)
		}
	}
}

func (p *pair) stillWanted() error {
	// The other direction may have carried something since its last count, a tick ago at most.
	silent := time.Since(time.Unix(0, p.last.Load())) - tick
	if silent >= p.Idle {
		return ErrIdle
	}
	select {
	case <-p.Draining:
		if silent >= quiet {
			return errDrained
		}
	default:
	}
	return nil
}

// mover answers a function that moves some bytes and says how many; io.EOF when there are no more.
func mover(dst, src net.Conn) func() (int64, error) {
	if to, ok := dst.(*net.TCPConn); ok {
		if _, ok := src.(*net.TCPConn); ok {
			return func() (int64, error) {
				limited := io.LimitedReader{R: src, N: chunk}
				n, err := to.ReadFrom(&limited)
				if err == nil && limited.N > 0 {
					err = io.EOF
				}
				return n, err
			}
		}
	}
	buffer := make([]byte, bufferSize)
	return func() (int64, error) {
		n, readErr := src.Read(buffer)
		if n == 0 {
			return 0, readErr
		}
		written, err := dst.Write(buffer[:n])
		if err != nil {
			// A write that ran out of time leaves the far end in the middle of something.
			return int64(written), fmt.Errorf("%v", err) //nolint:errorlint // must not be taken for a read that may go on
		}
		return int64(written), readErr
	}
}

// closeWrite tells the far end that no more comes; a connection that cannot is left to Run.
func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	if err := half.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close one direction: %w", err)
	}
	return nil
}
