package listener

import (
	"net"
	"sync"
	"time"

	"konsul.dev/pkg/obs"
	"konsul.dev/services/gateway/internal/splice"
)

// join moves bytes between a client and its backend until both are done. first are bytes the client
// has sent already; other is the datacenter at the far end of the WAN, where outbound connections
// lead to.
func (l *Port) join(client, backend net.Conn, first []byte, other string, outbound bool) {
	open := l.p.Metrics.connections.WithLabelValues(other)
	open.Inc()
	defer open.Dec()
	forward, backward := l.counters(other, outbound)
	err := backend.SetWriteDeadline(time.Now().Add(l.p.Settings.HandshakeTimeout))
	if err == nil && len(first) > 0 {
		_, err = backend.Write(first)
		forward(int64(len(first)))
	}
	if err == nil {
		err = l.splicer.Run(l.ctx, client, backend, splice.Options{
			Idle: l.p.Settings.IdleTimeout, HalfClosed: l.p.Settings.HalfCloseTimeout, Forward: forward, Backward: backward, Draining: l.draining,
		})
	}
	if err != nil {
		l.p.Log.Debug("connection ended", obs.KeyDatacenter, other, obs.KeyError, err)
	}
	_ = backend.Close()
}

// counters returns how to count bytes from client to backend, and back. What leaves the datacenter
// is sent, what arrives is received, whoever dialled.
func (l *Port) counters(other string, outbound bool) (forward, backward func(int64)) {
	own := l.p.Datacenter
	sent, received := l.p.Metrics.sent.WithLabelValues(own, other), l.p.Metrics.received.WithLabelValues(other, own)
	out := func(n int64) { sent.Add(float64(n)) }
	in := func(n int64) { received.Add(float64(n)) }
	if outbound {
		return out, in
	}
	return in, out
}

// maxOrigins bounds the addresses remembered; gateways are few.
const maxOrigins = 1024

// origins knows which datacenter an address belongs to, from having dialled it. Who calls in
// control traffic is encrypted; the address is the only hint, and it serves metrics alone.
type origins struct {
	mu    sync.Mutex
	known map[string]string
}

func (o *origins) learn(backend net.Conn, datacenter string) {
	host := hostOf(backend)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil || len(o.known) >= maxOrigins {
		o.known = map[string]string{}
	}
	o.known[host] = datacenter
}

func (o *origins) of(client net.Conn) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if datacenter, ok := o.known[hostOf(client)]; ok {
		return datacenter
	}
	return unknown
}

func hostOf(conn net.Conn) string {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}
