package raftnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/identity"
)

const (
	raftProtocol = "konsul-raft"
	// maxPool bounds idle connections to a peer: for the library's heartbeats and entries, for the
	// parallel leader write, and for VerifyLeader.
	maxPool        = 4
	networkTimeout = 5 * time.Second
	// maxInbound bounds connections from peers: a handful of each. maxGreetings bounds those that
	// have not shown a certificate yet, maxGreetingsOfOne those of one address; one more ends the
	// oldest.
	maxInbound        = 512
	maxGreetings      = 64
	maxGreetingsOfOne = 16
)

// streams is Raft's network: mutual TLS between the registries of one datacenter. It closes its
// connections with itself, which the library leaves to whoever is at the other end.
type streams struct {
	net.Listener
	advertise addr
	// accept and dial are how TLS is spoken with peers.
	accept, dial *tls.Config
	// receiving starts with the first Accept; arrived hands on peers that have shown who they are.
	receiving sync.Once
	arrived   chan peerConn
	// moved is Params.Moved.
	moved func(address string) (now string, moved bool)

	// admitting is whether peers are answered: a server without state keeps silent until it knows
	// that its vote can do no harm.
	admitting atomic.Bool

	// life ends with the network, and with it what is being dialled.
	life context.Context
	end  context.CancelFunc

	mu     sync.Mutex
	conns  map[*stream]struct{}
	closed bool
}

// stream is a connection that its network closes at the end.
type stream struct {
	net.Conn
	network *streams
}

// Close closes the connection and forgets it.
func (s *stream) Close() error {
	s.network.mu.Lock()
	delete(s.network.conns, s)
	s.network.mu.Unlock()
	return s.Conn.Close()
}

func (s *streams) track(conn net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	tracked := &stream{Conn: conn, network: s}
	s.conns[tracked] = struct{}{}
	return tracked, nil
}

// peerConn is a connection of a peer, or why there is none.
type peerConn struct {
	conn net.Conn
	err  error
}

// Accept returns the next connection of a peer that has shown its certificate: Raft gives a
// connection all the time it wants, so a stranger's must not get there.
func (s *streams) Accept() (net.Conn, error) {
	s.receiving.Do(func() { go s.receive() })
	select {
	case in := <-s.arrived:
		return in.conn, in.err
	case <-s.life.Done():
		return nil, net.ErrClosed
	}
}

func (s *streams) receive() {
	for {
		conn, err := s.Listener.Accept()
		switch {
		case err != nil:
			s.hand(peerConn{err: err}) // Raft waits a little before it asks again.
		case s.admitting.Load():
			go s.greet(conn)
		default:
			_ = conn.Close() // The peer tries again.
		}
		if s.life.Err() != nil {
			return
		}
	}
}

// greet shakes hands with whoever connected, who may take networkTimeout for it.
func (s *streams) greet(conn net.Conn) {
	ctx, cancel := context.WithTimeout(s.life, networkTimeout)
	defer cancel()
	secured := tls.Server(conn, s.accept)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // A stranger, or a peer that tries again.
		return
	}
	if admitted, ok := conn.(*admission.Conn); ok {
		admitted.Established()
	}
	if tracked, err := s.track(secured); err == nil {
		s.hand(peerConn{conn: tracked})
	}
}

func (s *streams) hand(in peerConn) {
	select {
	case s.arrived <- in:
	case <-s.life.Done():
		if in.conn != nil {
			_ = in.conn.Close() // The network is at its end.
		}
	}
}

// Close ends the listener and every connection.
func (s *streams) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.end()
	s.drop()
	return s.Listener.Close()
}

// hangUp ends every connection; peers connect again.
func (s *streams) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

func (s *streams) drop() {
	for c := range s.conns {
		_ = c.Conn.Close() // Peers notice either way.
	}
	clear(s.conns)
}

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

func listen(c Config, source identity.Source, metrics *Metrics) (*streams, error) {
	own := source.ID()
	server := source.ServerTLS(identity.ServerOptions{
		NextProtos: []string{raftProtocol},
		Accept: func(peer identity.ID) error {
			if peer.Kind != own.Kind || peer.Service != own.Service || peer.Datacenter != own.Datacenter {
				return fmt.Errorf("%s is no registry of datacenter %s", peer, own.Datacenter)
			}
			return nil
		},
	})
	listener, err := admission.Bind(context.Background(), net.ListenConfig{}, "registry.raft_listen", c.Listen)
	if err != nil {
		return nil, err
	}
	client := source.ClientTLS(identity.Want{Service: own.Service}, "")
	client.NextProtos = []string{raftProtocol}
	advertise := c.Advertise
	if advertise == "" {
		advertise = listener.Addr().String()
	}
	life, end := context.WithCancel(context.Background())
	gate := admission.New(admission.Limits{
		Connections: maxInbound, PerSource: maxInbound, HalfOpen: maxGreetings, HalfOpenPerSource: maxGreetingsOfOne,
	}, metrics.refusedPeer)
	return &streams{
		life: life, end: end, Listener: gate.Listener(listener), advertise: addr(advertise), accept: server, dial: client,
		arrived: make(chan peerConn), conns: map[*stream]struct{}{},
	}, nil
}

func (s *streams) Addr() net.Addr { return s.advertise }

// Dial connects to a peer. The handshake is part of it, so that a peer that accepts and then is
// silent counts as down.
func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.life, timeout)
	defer cancel()
	if s.moved != nil {
		if now, moved := s.moved(string(address)); moved {
			address = raft.ServerAddress(now)
		}
	}
	dialer := tls.Dialer{
		// A resolver of its own asks anew; a shared one joins a question for a name that is on its
		// way.
		NetDialer: &net.Dialer{Resolver: new(net.Resolver)}, Config: s.dial,
	}
	conn, err := dialer.DialContext(ctx, "tcp", string(address))
	if err != nil {
		return nil, fmt.Errorf("dial raft peer %s: %w", address, err)
	}
	return s.track(conn)
}

func newTransport(s *streams, log *slog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: maxPool, Timeout: networkTimeout, Logger: newLogger(log),
	})
}
