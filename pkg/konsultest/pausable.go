package konsultest

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Pausable passes bytes on to a server until it is paused. Then the server is as one that was sent
// SIGSTOP: its kernel takes connections and bytes, and nothing comes back. Safe for concurrent use.
type Pausable struct {
	listener net.Listener
	to       string
	passed   atomic.Int64

	mu sync.Mutex
	// resumed is nil while it runs, and closed when it runs again.
	resumed chan struct{}
}

// NewPausable returns one in front of the server at an address, which ends with the test.
func NewPausable(t testing.TB, to string) *Pausable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Pausable{listener: listener, to: to}
	t.Cleanup(func() {
		p.Resume()
		_ = listener.Close()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.carry(conn)
		}
	}()
	return p
}

// Addr is where it listens.
func (p *Pausable) Addr() string { return p.listener.Addr().String() }

// Passed returns how many bytes went through so far.
func (p *Pausable) Passed() int64 { return p.passed.Load() }

// Pause holds back everything from now on.
func (p *Pausable) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resumed == nil {
		p.resumed = make(chan struct{})
	}
}

// Resume lets through what was held back, and what follows.
func (p *Pausable) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resumed != nil {
		close(p.resumed)
		p.resumed = nil
	}
}

func (p *Pausable) wait() {
	p.mu.Lock()
	resumed := p.resumed
	p.mu.Unlock()
	if resumed != nil {
		<-resumed
	}
}

func (p *Pausable) carry(client net.Conn) {
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.to)
	if err != nil {
		_ = client.Close()
		return
	}
	go p.pass(server, client)
	p.pass(client, server)
}

func (p *Pausable) pass(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.wait()
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
		p.passed.Add(int64(n))
	}
}
