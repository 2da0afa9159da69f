package restedge

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/method"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
)

// The programs behind the edge, as the contracts name them.
const (
	registryServer = "registry"
	caServer       = "ca"
	gossipServer   = "wan-gossip"
	routerServer   = "failover-router"
)

// Conns lead to the datacenter's services.
type Conns struct {
	Registry, CA, WANGossip, FailoverRouter grpc.ClientConnInterface
}

// Named returns the connections with errors that say which service of the datacenter did not
// answer.
func (c Conns) Named(datacenter string) Conns {
	for name, conn := range map[string]*grpc.ClientConnInterface{
		registryServer: &c.Registry, caServer: &c.CA, gossipServer: &c.WANGossip, routerServer: &c.FailoverRouter,
	} {
		*conn = backend{conn: *conn, service: name, datacenter: datacenter}
	}
	return c
}

// guarded returns connections to services that keep no tokens, which ask the registry what a token
// may do before a call goes on: those services take the gateway's word for who calls. The registry
// decides for itself.
func (c Conns) guarded(tokens registryv1.TokenServiceClient) (Conns, error) {
	for server, conn := range map[string]*grpc.ClientConnInterface{caServer: &c.CA, gossipServer: &c.WANGossip, routerServer: &c.FailoverRouter} {
		rules, err := permissions(server)
		if err != nil {
			return c, err
		}
		*conn = authorizing{conn: *conn, tokens: tokens, rules: rules}
	}
	return c, nil
}

// public returns what clients may call, by the contracts, and where it is served.
func (c Conns) public() (Backends, error) {
	out := Backends{}
	for server, conn := range map[string]grpc.ClientConnInterface{
		registryServer: c.Registry, caServer: c.CA, gossipServer: c.WANGossip, routerServer: c.FailoverRouter,
	} {
		methods, err := method.Served(server)
		if err != nil {
			return nil, err
		}
		for _, m := range methods {
			switch {
			case !m.Public():
			case server == registryServer: // It decides for itself, also about methods that this gateway is too old to know.
				out[string(m.Descriptor.Parent().FullName())] = conn
			default:
				out[m.FullName] = conn
			}
		}
	}
	return out, nil
}

// register serves the same calls below /api/v1; which methods have a path is said in the contracts.
func (c Conns) register(ctx context.Context, mux *runtime.ServeMux) error {
	err := errors.Join(
		registryv1.RegisterKVServiceHandlerClient(ctx, mux, registryv1.NewKVServiceClient(c.Registry)),
		registryv1.RegisterLeaseServiceHandlerClient(ctx, mux, registryv1.NewLeaseServiceClient(c.Registry)),
		registryv1.RegisterLockServiceHandlerClient(ctx, mux, registryv1.NewLockServiceClient(c.Registry)),
		registryv1.RegisterCatalogServiceHandlerClient(ctx, mux, registryv1.NewCatalogServiceClient(c.Registry)),
		registryv1.RegisterOperatorServiceHandlerClient(ctx, mux, registryv1.NewOperatorServiceClient(c.Registry)),
		registryv1.RegisterACLServiceHandlerClient(ctx, mux, registryv1.NewACLServiceClient(c.Registry)),
		registryv1.RegisterBackupServiceHandlerClient(ctx, mux, registryv1.NewBackupServiceClient(c.Registry)),
		federationv1.RegisterFederationServiceHandlerClient(ctx, mux, federationv1.NewFederationServiceClient(c.Registry)),
		cav1.RegisterCertificateServiceHandlerClient(ctx, mux, cav1.NewCertificateServiceClient(c.CA)),
		wangossipv1.RegisterDatacenterServiceHandlerClient(ctx, mux, wangossipv1.NewDatacenterServiceClient(c.WANGossip)),
		replicatorv1.RegisterStatusServiceHandlerClient(ctx, mux, replicatorv1.NewStatusServiceClient(c.Registry)),
		failoverrouterv1.RegisterRouterServiceHandlerClient(ctx, mux, failoverrouterv1.NewRouterServiceClient(c.FailoverRouter)),
	)
	if err != nil {
		return fmt.Errorf("register REST handlers: %w", err)
	}
	return nil
}
