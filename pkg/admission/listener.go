package admission

import (
	"net"
	"sync"
)

// Listener returns a listener whose connections have passed the gate; one that is refused is closed
// and never seen. Closing a connection gives its place back.
func (g *Gate) Listener(inner net.Listener) net.Listener { return &listener{Listener: inner, gate: g} }

type listener struct {
	net.Listener

	gate *Gate
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if ticket, ok := l.gate.Admit(conn); ok {
			return &Conn{Conn: conn, ticket: ticket}, nil
		}
		_ = conn.Close() // the client sees that nobody took it
	}
}

// Conn is a connection that has a place until it is closed.
type Conn struct {
	net.Conn

	ticket      *Ticket
	established sync.Once
	closed      sync.Once
}

// Established says that the client has said what it wants.
func (c *Conn) Established() { c.established.Do(func() { c.ticket.Established() }) }

// Close implements net.Conn.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(c.ticket.Release)
	return err
}
