package forward

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
)

// Service is the registry's own name among the services.
const Service = "registry"

// Addresses knows where the servers of the own datacenter serve gRPC.
type Addresses interface {
	Address(id string) (string, bool)
}

// Pool keeps a connection to each server of the datacenter and to each other datacenter, made when
// first asked for. Safe for concurrent use.
type Pool struct {
	identity  identity.Source
	telemetry *obs.Telemetry
	servers   Addresses
	gateways  []string

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn
	closed bool
}

// NewPool returns a pool. gateways are the own datacenter's.
func NewPool(source identity.Source, telemetry *obs.Telemetry, servers Addresses, gateways []string) *Pool {
	return &Pool{identity: source, telemetry: telemetry, servers: servers, gateways: gateways, conns: map[string]*grpc.ClientConn{}}
}

// Server returns the connection to a server of the own datacenter, at the address it has now.
func (p *Pool) Server(id string) (grpc.ClientConnInterface, error) {
	address, ok := p.servers.Address(id)
	if !ok {
		return nil, fault.New(fault.Unavailable, fault.ReasonNoLeader, "it is not known yet where the server %q is", id).
			WithRetryAfter(100 * time.Millisecond)
	}
	return p.get("server/"+address, p.dialer(address))
}

// Address returns a connection to whoever serves gRPC at an address.
func (p *Pool) Address(address string) (grpc.ClientConnInterface, error) {
	return p.get("server/"+address, p.dialer(address))
}

func (p *Pool) dialer(address string) func() (*grpc.ClientConn, error) {
	return func() (*grpc.ClientConn, error) {
		return rpc.Dial([]string{address}, rpc.ClientParams{
			Identity: p.identity, Want: identity.Want{Service: Service}, Telemetry: p.telemetry,
			Options: []grpc.DialOption{
				// The outcomes of many transactions may come back in one answer.
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
				// A server that starts is met, and a new leader found, as soon as it is there. To
				// reset a longer backoff races with the connection's own goroutines (grpc 1.85).
				grpc.WithConnectParams(grpc.ConnectParams{Backoff: nearby(), MinConnectTimeout: connectTimeout}),
			},
		})
	}
}

// nearby is how soon a server of the own datacenter that did not answer is tried again.
func nearby() backoff.Config {
	return backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond}
}

// connectTimeout bounds one try.
const connectTimeout = 5 * time.Second

// maxAnswer bounds what another server of the datacenter may answer at once.
const maxAnswer = 256 << 20

// Datacenter returns the connection to the registry of another datacenter, through the own
// gateways.
func (p *Pool) Datacenter(name string) (grpc.ClientConnInterface, error) {
	return p.get("datacenter/"+name, func() (*grpc.ClientConn, error) {
		return rpc.DialDatacenter(p.gateways, name, Service, rpc.ClientParams{Identity: p.identity, Telemetry: p.telemetry})
	})
}

func (p *Pool) get(key string, dial func() (*grpc.ClientConn, error)) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fault.New(fault.Unavailable, fault.ReasonNoLeader, "this server is stopping")
	}
	if conn := p.conns[key]; conn != nil {
		return conn, nil
	}
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	p.conns[key] = conn
	return conn, nil
}

// Close ends every connection.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, conn := range p.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
