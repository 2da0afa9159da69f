package forward

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"

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

// NewPool answers a pool. gateways are the own datacenter's.
func NewPool(source identity.Source, telemetry *obs.Telemetry, servers Addresses, gateways []string) *Pool {
	return &Pool{identity: source, telemetry: telemetry, servers: servers, gateways: gateways, conns: map[string]*grpc.ClientConn{}}
}

// Server answers the connection to a server of the own datacenter, at the address it has now.
func (p *Pool) Server(id string) (grpc.ClientConnInterface, error) {
	address, ok := p.servers.Address(id)
	if !ok {
		return nil, fault.New(fault.Unavailable, fault.ReasonNoLeader, "it is not known yet where the server %q is", id).
			WithRetryAfter(100 * time.Millisecond)
	}
	return p.get("server/"+address, p.dialer(address))
}

// Address answers a connection to whoever serves gRPC at an address, which is tried again at once when
// it failed before.
func (p *Pool) Address(address string) (grpc.ClientConnInterface, error) {
	conn, err := p.get("server/"+address, p.dialer(address))
	if err != nil {
		return nil, err
	}
	conn.ResetConnectBackoff()
	return conn, nil
}

func (p *Pool) dialer(address string) func() (*grpc.ClientConn, error) {
	return func() (*grpc.ClientConn, error) {
		return rpc.Dial([]string{address}, rpc.ClientParams{
			Identity: p.identity, Want: identity.Want{Service: Service}, Telemetry: p.telemetry,
			// The outcomes of many transactions may come back in one answer.
			Options: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer))},
		})
	}
}

// maxAnswer bounds what another server of the datacenter may answer at once.
const maxAnswer = 256 << 20

// Datacenter answers the connection to the registry of another datacenter, through the own gateways.
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
