// Package admission bounds the connections that strangers may hold on a port.
//
// A Gate counts connections in all and by source address. Those whose client has not yet said what
// it wants are half open: they have a lower bound of their own, and where a bound is reached the
// oldest of them is closed rather than the newest refused. A silent crowd so pushes out its own,
// and a client that speaks at once comes through. Established connections are never closed. All
// methods are safe for concurrent use.
package admission

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// Reason says why a connection was refused or closed; it is fit for a metric's label.
type Reason string

// The reasons.
const (
	// TooMany means the port has as many connections as it may have.
	TooMany Reason = "too_many_connections"
	// TooManyFromSource means one source address has as many as it may have.
	TooManyFromSource Reason = "too_many_from_source"
	// TooSilent means a half-open connection had to make room for a newer one.
	TooSilent Reason = "half_open_evicted"
)

// Reasons returns all reasons, for metrics that should be there before they count.
func Reasons() []Reason { return []Reason{TooMany, TooManyFromSource, TooSilent} }

// Limits are numbers of connections. A source is an IPv4 address or an IPv6 network of 64 bits.
type Limits struct {
	// Connections bounds all, PerSource those of one source.
	Connections, PerSource int
	// HalfOpen and HalfOpenPerSource bound those that are not established.
	HalfOpen, HalfOpenPerSource int
}

// Gate admits connections.
type Gate struct {
	limits  Limits
	refused func(Reason)

	mu      sync.Mutex
	open    int
	sources map[netip.Prefix]*source
	half    list.List // of *Ticket, the oldest first
}

type source struct{ open, half int }

// Ticket is one admitted connection's place.
type Ticket struct {
	gate *Gate
	conn net.Conn
	from netip.Prefix

	// Guarded by the gate's mutex.
	half    *list.Element // nil once established
	ended   bool
	evicted bool
}

// New returns a gate. refused is called for each connection that is refused or closed.
func New(limits Limits, refused func(Reason)) *Gate {
	return &Gate{limits: limits, refused: refused, sources: map[netip.Prefix]*source{}}
}

// Admit returns a place for conn, which is half open; false when it is refused. The caller closes
// conn if it is refused, and calls Release once it is closed otherwise. Admit closes a half-open
// connection when there are too many of these.
func (g *Gate) Admit(conn net.Conn) (*Ticket, bool) {
	ticket, evicted, reason := g.admit(conn)
	if evicted != nil {
		g.refused(TooSilent)
		_ = evicted.conn.Close() // whoever reads from it sees the end
	}
	if ticket == nil {
		g.refused(reason)
		return nil, false
	}
	return ticket, true
}

func (g *Gate) admit(conn net.Conn) (admitted, evicted *Ticket, reason Reason) {
	from := sourceOf(conn)
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sources[from]
	if s == nil {
		s = &source{}
	}
	switch {
	case s.half >= g.limits.HalfOpenPerSource, s.half > 0 && s.open >= g.limits.PerSource:
		evicted = g.evict(from)
	case g.half.Len() >= g.limits.HalfOpen, g.half.Len() > 0 && g.open >= g.limits.Connections:
		evicted = g.evict(g.mostHalfOpen())
	}
	switch {
	case s.open >= g.limits.PerSource:
		return nil, evicted, TooManyFromSource
	case g.open >= g.limits.Connections:
		return nil, evicted, TooMany
	}
	g.open++
	s.open++
	s.half++
	g.sources[from] = s
	admitted = &Ticket{gate: g, conn: conn, from: from}
	admitted.half = g.half.PushBack(admitted)
	return admitted, evicted, ""
}

// mostHalfOpen returns the source with the most half-open connections. Called with mu held.
func (g *Gate) mostHalfOpen() (worst netip.Prefix) {
	most := 0
	for from, s := range g.sources {
		if s.half > most {
			worst, most = from, s.half
		}
	}
	return worst
}

// evict ends the oldest half-open connection of a source. Called with mu held.
func (g *Gate) evict(from netip.Prefix) *Ticket {
	for e := g.half.Front(); e != nil; e = e.Next() {
		if t, ok := e.Value.(*Ticket); ok && t.from == from {
			t.evicted = true
			g.end(t)
			return t
		}
	}
	return nil
}

// end gives a place back. Called with mu held.
func (g *Gate) end(t *Ticket) {
	if t.ended {
		return
	}
	t.ended = true
	g.establish(t)
	g.open--
	s := g.sources[t.from]
	if s.open--; s.open == 0 {
		delete(g.sources, t.from)
	}
}

// establish is called with mu held.
func (g *Gate) establish(t *Ticket) {
	if t.half == nil {
		return
	}
	g.half.Remove(t.half)
	t.half = nil
	g.sources[t.from].half--
}

// Open returns how many connections there are.
func (g *Gate) Open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// Established says that the client has said what it wants, and reports whether the connection still
// has its place: the gate may have closed it.
func (t *Ticket) Established() bool {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.gate.establish(t)
	return !t.evicted
}

// Evicted reports whether the gate has closed the connection.
func (t *Ticket) Evicted() bool {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	return t.evicted
}

// Release gives the place back. It may be called more than once.
func (t *Ticket) Release() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.gate.end(t)
}

// networkBits6 is the part of an IPv6 address that one customer has at least: the rest is his to
// choose.
const networkBits6 = 64

// sourceOf returns who is counted together. What is no IP connection shares one source.
func sourceOf(conn net.Conn) netip.Prefix {
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	address := remote.Addr().Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = networkBits6
	}
	return netip.PrefixFrom(address, bits).Masked()
}
