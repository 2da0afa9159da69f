package rpc

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
)

// Reasons of calls that met a limit.
const (
	// ReasonStreamLimit means the connection carries too many calls at once.
	ReasonStreamLimit = "STREAM_LIMIT"
	// ReasonInflightLimit means the server holds too many bytes of requests already.
	ReasonInflightLimit = "INFLIGHT_LIMIT"
	// ReasonConnectionLimit means the server has too many connections.
	ReasonConnectionLimit = "CONNECTION_LIMIT"
)

// What counts as met, for metrics.
const (
	limitConnections = "connections"
	limitStreams     = "streams"
	limitInflight    = "inflight_bytes"
	limitReadTimeout = "read_timeout"
)

const (
	// smallMessage bounds a request to a server that says no more: names, certificates and
	// settings.
	smallMessage = 256 << 10
	// callWindow is how much of a request a caller may send before anybody reads it. Whoever reads
	// lets come what the message's length says, so a large one costs a round trip more.
	callWindow = 64 << 10
	// headerBytes bounds the headers of a call.
	headerBytes = 128 << 10
	// strangerStreams and strangerLifetime are enough to enroll.
	strangerStreams  = 16
	strangerLifetime = 30 * time.Second
	// strangersShare and guestsShare are the parts of connections and bytes that callers may take
	// whom nobody knows, or whose hosts are not the datacenter's.
	strangersShare = 4
	guestsShare    = 4
	// connectionShare is the part of the bytes that one connection of those may take.
	connectionShare = 16
	// retryLater is when a caller that met a limit may try again.
	retryLater = time.Second
)

// class is how far a caller is trusted not to take all there is.
type class int

const (
	// stranger showed no certificate.
	stranger class = iota
	// guest is a workload or an agent: its host is not the datacenter's.
	guest
	// component is a service of a datacenter. It may carry the calls of many.
	component
)

// agentService is the component that runs on other people's hosts.
const agentService = "agent"

func classOf(id identity.ID, known bool) class {
	switch {
	case !known:
		return stranger
	case id.Kind != identity.KindService || id.Service == agentService:
		return guest
	default:
		return component
	}
}

// bounds is what the callers of one server may take: connections, calls, and bytes of requests that
// are being read or worked at. Safe for concurrent use.
type bounds struct {
	config.Limits
	// message is the most that a request may weigh.
	message int64
	met     func(limit string)
	// guests and components are the bytes there are for each.
	guests, components *semaphore.Weighted

	mu sync.Mutex
	// open are the connections; total counts those too whose handshake goes on.
	open  map[*connection]struct{}
	total int
	// strangers counts connections without a certificate, and those that may yet show one.
	strangers int
}

func newBounds(l config.Limits, message int, met func(limit string)) *bounds {
	b := &bounds{Limits: l, message: int64(message), met: met, open: map[*connection]struct{}{}}
	guests := max(l.MaxInflightBytes/guestsShare, b.message)
	b.guests = semaphore.NewWeighted(guests)
	b.components = semaphore.NewWeighted(max(l.MaxInflightBytes-guests, b.message))
	return b
}

// connection is one caller's connection.
type connection struct {
	net.Conn
	bounds *bounds
	class  class
	since  time.Time
	close  sync.Once
	// calls is how many are open.
	calls atomic.Int32
	// inflight is this connection's part of the bytes; nil: it has no limit of its own.
	inflight *semaphore.Weighted
	// reading counts the calls whose request is being read, by the turn of sweep in which that
	// began.
	reading [2]atomic.Int32
	turn    atomic.Uint32
}

// arrive counts a connection whose handshake begins, or refuses it.
func (b *bounds) arrive() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total >= b.MaxConnections || b.strangers >= max(1, b.MaxConnections/strangersShare) {
		b.met(limitConnections)
		return fault.New(fault.ResourceExhausted, ReasonConnectionLimit, "%d connections are open already, %d of them without a certificate", b.total, b.strangers).
			WithRetryAfter(retryLater).WithRemedy("raise server.limits.max_connections if all of them are honest")
	}
	b.total++
	b.strangers++
	return nil
}

// leave undoes arrive for a connection whose handshake failed.
func (b *bounds) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total--
	b.strangers--
}

// admit returns a connection that arrived and whose caller is known now.
func (b *bounds) admit(conn net.Conn, c class) *connection {
	out := &connection{Conn: conn, bounds: b, class: c, since: time.Now()}
	if c != component {
		out.inflight = semaphore.NewWeighted(b.connectionBytes())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c != stranger {
		b.strangers--
	}
	b.open[out] = struct{}{}
	return out
}

// connectionBytes is how many bytes of requests one connection may hold that is no component's.
func (b *bounds) connectionBytes() int64 { return max(b.MaxInflightBytes/connectionShare, b.message) }

// Close implements net.Conn.
func (c *connection) Close() error {
	c.close.Do(func() {
		c.bounds.mu.Lock()
		defer c.bounds.mu.Unlock()
		delete(c.bounds.open, c)
		c.bounds.total--
		if c.class == stranger {
			c.bounds.strangers--
		}
	})
	return c.Conn.Close()
}

// sweep closes, until ctx ends, connections of strangers that stay, and those of strangers and
// guests on which a request is still being read after its time. gRPC itself waits for ever for the
// rest of a message. A component's is left alone: it carries other calls, and a slow one is more
// likely the network.
func (b *bounds) sweep(ctx context.Context) {
	tick := time.NewTicker(b.RequestReadTimeout)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			b.closeSlow(now)
		}
	}
}

func (b *bounds) closeSlow(now time.Time) {
	var slow []*connection
	b.mu.Lock()
	for c := range b.open {
		if c.class != component && c.tooSlow(now) {
			slow = append(slow, c)
		}
	}
	b.mu.Unlock()
	for _, c := range slow {
		b.met(limitReadTimeout)
		_ = c.Close() // Whoever reads from it hears of it.
	}
}

// tooSlow ends a turn: it reports whether a request that began to be read before it still is, or a
// stranger stays.
func (c *connection) tooSlow(now time.Time) bool {
	next := c.turn.Add(1) % 2
	return c.reading[next].Load() > 0 || c.class == stranger && now.Sub(c.since) > strangerLifetime
}

// held is what one call takes of its server. The zero one takes nothing.
type held struct {
	conn *connection
	// bytes is what it holds of the server's, and of its connection's.
	bytes int64
	turn  uint32
	read  bool
}

// begin counts a call whose request is about to be read, and waits for room for the largest there
// may be. Whoever calls it calls end; received tells how large the request was.
func (b *bounds) begin(ctx context.Context) (held, error) {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return held{}, nil
	}
	info, _ := p.AuthInfo.(peerInfo)
	c := info.conn
	if c == nil {
		return held{}, nil
	}
	if most := b.streams(c.class); int(c.calls.Add(1)) > most {
		c.calls.Add(-1)
		b.met(limitStreams)
		return held{}, fault.New(fault.ResourceExhausted, ReasonStreamLimit, "this connection carries %d calls already", most).
			WithRetryAfter(retryLater).WithRemedy("end some, or raise server.limits.max_concurrent_streams")
	}
	if err := b.reserve(ctx, c); err != nil {
		c.calls.Add(-1)
		return held{}, err
	}
	h := held{conn: c, bytes: b.message, turn: c.turn.Load() % 2}
	c.reading[h.turn].Add(1)
	return h, nil
}

func (b *bounds) streams(c class) int {
	switch c {
	case stranger:
		return strangerStreams
	case guest:
		return b.MaxConcurrentStreams
	default:
		return b.MaxCarriedStreams
	}
}

// reserve takes room for a request: first of its connection's, so that one that waits for itself
// keeps nobody else waiting.
func (b *bounds) reserve(ctx context.Context, c *connection) error {
	if c.inflight != nil {
		if err := b.take(ctx, c.inflight); err != nil {
			return err
		}
	}
	if err := b.take(ctx, b.of(c.class)); err != nil {
		if c.inflight != nil {
			c.inflight.Release(b.message)
		}
		return err
	}
	return nil
}

func (b *bounds) of(c class) *semaphore.Weighted {
	if c == component {
		return b.components
	}
	return b.guests
}

func (b *bounds) take(ctx context.Context, room *semaphore.Weighted) error {
	if room.TryAcquire(b.message) {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, b.RequestReadTimeout)
	defer cancel()
	if room.Acquire(waiting, b.message) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b.met(limitInflight)
	return fault.New(fault.ResourceExhausted, ReasonInflightLimit, "there was no room for one more request within %s", b.RequestReadTimeout).
		WithRetryAfter(retryLater).WithRemedy("send less at once, or raise server.limits.max_inflight_bytes")
}

// received gives back what the request did not need.
func (h *held) received(bytes int) {
	if h.conn == nil || h.read {
		return
	}
	h.read = true
	h.conn.reading[h.turn].Add(-1)
	h.keep(min(int64(bytes), h.bytes))
}

// end gives back the rest.
func (h *held) end() {
	if h.conn == nil {
		return
	}
	h.received(0)
	h.keep(0)
	h.conn.calls.Add(-1)
	h.conn = nil
}

func (h *held) keep(bytes int64) {
	back := h.bytes - bytes
	h.bytes = bytes
	h.conn.bounds.of(h.conn.class).Release(back)
	if h.conn.inflight != nil {
		h.conn.inflight.Release(back)
	}
}

// options are what gRPC itself keeps to.
func (b *bounds) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(b.message)),
		grpc.MaxConcurrentStreams(uint32(b.MaxCarriedStreams)), //nolint:gosec // Validate bounds it
		grpc.MaxHeaderListSize(headerBytes),
		grpc.InitialWindowSize(callWindow), grpc.InitialConnWindowSize(connWindow),
	}
}

// peerCredentials read the peer's identity once for each connection, not for each call, and count
// connections.
type peerCredentials struct {
	credentials.TransportCredentials
	bounds *bounds
}

func (c peerCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := c.bounds.arrive(); err != nil {
		return nil, nil, err
	}
	conn, auth, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		c.bounds.leave()
		return nil, nil, err
	}
	info := peerInfo{TLSInfo: auth.(credentials.TLSInfo)} //nolint:forcetypeassert // what TLS credentials answer
	if len(info.State.PeerCertificates) > 0 {
		id, err := identity.PeerFromState(info.State)
		info.id, info.known = id, err == nil
	}
	info.conn = c.bounds.admit(conn, classOf(info.id, info.known))
	return info.conn, info, nil
}

func (c peerCredentials) Clone() credentials.TransportCredentials {
	return peerCredentials{c.TransportCredentials.Clone(), c.bounds}
}
