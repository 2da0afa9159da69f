package serfpool

import (
	"errors"
	"fmt"
	"log" //nolint:depguard // the type the library takes; it writes to slog
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"konsul.dev/pkg/admission"
)

// Limits bound what the gossip port holds for callers that nobody has authenticated yet: memberlist
// reads a whole exchange before it tries the keys on it.
type Limits struct {
	// Streams bounds the exchanges over TCP at a time, StreamsPerSource those of one source
	// address. One more ends the oldest.
	Streams, StreamsPerSource int
	// StreamBytes bounds one exchange, and so how large a federation's list of members may become.
	StreamBytes int64
}

// bindTries is how often a port that the kernel chose for TCP may turn out to be taken for UDP.
const bindTries = 10

var errStreamTooLong = errors.New("more bytes than wan_gossip.max_stream_bytes")

// transport is memberlist's own, with a gate before its streams.
type transport struct {
	*memberlist.NetTransport

	limits  Limits
	gate    *admission.Gate
	metrics *Metrics
	streams chan net.Conn
	done    chan struct{}
	stop    sync.Once
}

func listen(ip string, port int, limits Limits, metrics *Metrics, logger *log.Logger) (*transport, error) {
	var inner *memberlist.NetTransport
	var err error
	for range bindTries {
		inner, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{ip}, BindPort: port, Logger: logger})
		// The library wraps nothing.
		if port != 0 || err == nil || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	t := &transport{
		NetTransport: inner, limits: limits, metrics: metrics,
		// Nothing tells a stranger's exchange from a member's before it is over: all stay half
		// open.
		gate: admission.New(admission.Limits{
			Connections: limits.Streams, PerSource: limits.StreamsPerSource,
			HalfOpen: limits.Streams, HalfOpenPerSource: limits.StreamsPerSource,
		}, metrics.refused),
		streams: make(chan net.Conn), done: make(chan struct{}),
	}
	go t.admit()
	return t, nil
}

// admit hands on the streams that find a place.
func (t *transport) admit() {
	for {
		select {
		case <-t.done:
			return
		case conn := <-t.NetTransport.StreamCh():
			ticket, ok := t.gate.Admit(conn)
			if !ok {
				_ = conn.Close()
				continue
			}
			s := t.bounded(conn)
			s.ticket = ticket
			select {
			case t.streams <- s:
			case <-t.done:
				_ = s.Close()
				return
			}
		}
	}
}

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. Who was dialled is a stranger, too,
// until its answer has been opened with a key.
func (t *transport) DialAddressTimeout(address memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := t.NetTransport.DialAddressTimeout(address, timeout)
	if err != nil {
		return nil, fmt.Errorf("dial gossip: %w", err)
	}
	return t.bounded(conn), nil
}

// Shutdown implements memberlist.Transport. Streams are handed on until the listeners are closed:
// these wait for who accepts.
func (t *transport) Shutdown() error {
	err := t.NetTransport.Shutdown()
	t.stop.Do(func() { close(t.done) })
	return err
}

func (t *transport) bounded(conn net.Conn) *stream {
	s := &stream{Conn: conn, metrics: t.metrics}
	s.left.Store(t.limits.StreamBytes)
	return s
}

// stream is a connection from which so many bytes can be read.
type stream struct {
	net.Conn

	metrics *Metrics
	ticket  *admission.Ticket // nil for one that was dialled
	left    atomic.Int64
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	left := s.left.Load()
	if left <= 0 {
		s.metrics.refused(reasonTooLong)
		return 0, errStreamTooLong
	}
	n, err := s.Conn.Read(p[:min(int64(len(p)), left)])
	s.left.Add(int64(-n))
	return n, err
}

// Close implements net.Conn.
func (s *stream) Close() error {
	err := s.Conn.Close()
	if s.ticket != nil {
		s.ticket.Release()
	}
	return err
}
