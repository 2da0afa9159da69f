package forward

import (
	"errors"
	"sync"

	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
)

// Service is the registry's own name among the services.
const Service = "registry"

// Pool keeps a connection to each server of the datacenter and to each other datacenter, made when
// first asked for. Safe for concurrent use.
type Pool struct {
	identity  identity.Source
	telemetry *obs.Telemetry
	servers   map[string]string
	gateways  []string

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn
	closed bool
}

// NewPool answers a pool. servers maps ids to gRPC addresses; gateways are the own datacenter's.
func NewPool(source identity.Source, telemetry *obs.Telemetry, servers map[string]string, gateways []string) *Pool {
	return &Pool{identity: source, telemetry: telemetry, servers: servers, gateways: gateways, conns: map[string]*grpc.ClientConn{}}
}

// Server answers the connection to a server of the own datacenter.
func (p *Pool) Server(id string) (grpc.ClientConnInterface, error) {
	address, ok := p.servers[id]
	if !ok {
		return nil, fault.New(fault.Unavailable, fault.ReasonNoLeader, "server %q is not among registry.servers", id).
			WithRemedy("list every server of the datacenter in registry.servers, the same on all of them")
	}
	return p.get("server/"+id, func() (*grpc.ClientConn, error) {
		return rpc.Dial([]string{address}, rpc.ClientParams{
			Identity: p.identity, Want: identity.Want{Service: Service}, Telemetry: p.telemetry,
		})
	})
}

// Datacenter answers the connection to the registry of another datacenter, through the own gateways.
func (p *Pool) Datacenter(name string) (grpc.ClientConnInterface, error) {
	return p.get("datacenter/"+name, func() (*grpc.ClientConn, error) {
		return rpc.DialDatacenter(p.gateways, name, Service, rpc.ClientParams{Identity: p.identity, Telemetry: p.telemetry})
	})
}

func (p *Pool) get(key string, dial func() (*grpc.ClientConn, error)) (grpc.ClientConnInterface, error) {
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
