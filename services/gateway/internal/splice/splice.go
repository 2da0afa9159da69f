// Package splice joins two connections so that each hears what the other says.
//
// Bytes are counted while the connections live. An end that closes one direction closes it for the
// other end too and may go on listening for a while. A pair holds its two sockets and no other
// descriptor: splice(2) would cost it two pipes, which Go keeps until its second garbage collection
// after the pair has ended. A Splicer serves any number of pairs at once.
package splice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// tick is how often a direction looks up whether it is still wanted.
	tick = time.Second
	// quiet is how long a connection must have carried nothing to be closed while draining: no
	// request is in flight on it, most likely, and its client opens another elsewhere.
	quiet = time.Second

	bufferSize = 32 << 10
)

// Why a pair was ended that had not ended by itself.
var (
	// ErrIdle means nothing was said for Options.Idle.
	ErrIdle = errors.New("connection idle for too long")
	// ErrHalfClosed means one end had closed and the other said nothing for Options.HalfClosed.
	ErrHalfClosed = errors.New("connection half closed and silent for too long")
)

// Options shape a pair.
type Options struct {
	// Idle is how long both directions may be silent.
	Idle time.Duration
	// HalfClosed is how long the open direction may be silent once the other has ended: an end that
	// has gone for good looks like one that still listens. Zero: as long as Idle.
	HalfClosed time.Duration
	// Forward and Backward count bytes from a to b, and from b to a; called from different
	// goroutines.
	Forward, Backward func(n int64)
	// Draining, once closed, asks for an end at the first quiet moment.
	Draining <-chan struct{}
}

// Splicer holds the buffers that pairs share.
type Splicer struct{ buffers sync.Pool }

// New returns a Splicer.
func New() *Splicer {
	return &Splicer{buffers: sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

// Run copies both ways until both directions have ended, one fails, or ctx ends. It closes both
// connections. An orderly end is no error.
func (s *Splicer) Run(ctx context.Context, a, b net.Conn, o Options) error {
	if o.HalfClosed == 0 {
		o.HalfClosed = o.Idle
	}
	p := &pair{Options: o, splicer: s}
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

	splicer *Splicer
	last    atomic.Int64 // when either direction last carried something, Unix nanoseconds
	half    atomic.Bool  // one direction has ended
}

// copy moves bytes from src to dst until src has no more, then closes that direction of dst.
func (p *pair) copy(dst, src net.Conn, count func(int64)) error {
	read, err := p.splicer.reader(src)
	if err != nil {
		return err
	}
	for {
		now := time.Now()
		if err := errors.Join(src.SetReadDeadline(now.Add(tick)), dst.SetWriteDeadline(now.Add(p.Idle+tick))); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		n, readErr, writeErr := p.move(dst, read)
		if n > 0 {
			count(n)
			p.last.Store(time.Now().UnixNano())
		}
		switch {
		case writeErr != nil:
			return fmt.Errorf("write: %w", writeErr)
		case readErr == nil:
		case errors.Is(readErr, io.EOF):
			p.last.Store(time.Now().UnixNano())
			p.half.Store(true)
			return closeWrite(dst)
		case errors.Is(readErr, os.ErrDeadlineExceeded):
			if err := p.stillWanted(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("read: %w", readErr)
		}
	}
}

// move passes on what can be read at once, and says how much.
func (p *pair) move(dst net.Conn, read readFunc) (n int64, readErr, writeErr error) {
	buffer, got, readErr := read()
	if got == 0 {
		return 0, readErr, nil
	}
	defer p.splicer.buffers.Put(buffer)
	written, writeErr := dst.Write(buffer[:got])
	return int64(written), readErr, writeErr
}

func (p *pair) stillWanted() error {
	silent := time.Since(time.Unix(0, p.last.Load()))
	switch {
	case silent >= p.Idle:
		return ErrIdle
	case p.half.Load() && silent >= p.HalfClosed:
		return ErrHalfClosed
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

// readFunc waits for bytes and returns a buffer with n of them; io.EOF when there are no more. The
// buffer is the caller's, to be put back, if n is not zero.
type readFunc func() (buffer *[bufferSize]byte, n int, err error)

// reader returns how to read from src. A TCP connection is waited for without a buffer: of
// thousands of pairs, most are silent.
func (s *Splicer) reader(src net.Conn) (readFunc, error) {
	tcp, ok := src.(*net.TCPConn)
	if !ok {
		// A TLS connection does not tell when it has bytes: the buffer waits with it.
		return func() (*[bufferSize]byte, int, error) {
			buffer, _ := s.buffers.Get().(*[bufferSize]byte)
			n, err := src.Read(buffer[:])
			if n == 0 {
				s.buffers.Put(buffer)
			}
			return buffer, n, err
		}, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach socket: %w", err)
	}
	return func() (buffer *[bufferSize]byte, n int, err error) {
		waitErr := raw.Read(func(fd uintptr) bool {
			buffer, _ = s.buffers.Get().(*[bufferSize]byte)
			for {
				if n, err = syscall.Read(int(fd), buffer[:]); !errors.Is(err, syscall.EINTR) {
					break
				}
			}
			if n <= 0 {
				s.buffers.Put(buffer)
			}
			return !errors.Is(err, syscall.EAGAIN)
		})
		switch {
		case waitErr != nil:
			return nil, 0, waitErr
		case err != nil:
			return nil, 0, os.NewSyscallError("read", err)
		case n == 0:
			return nil, 0, io.EOF
		}
		return buffer, n, nil
	}, nil
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
