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

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"konsul.dev/pkg/fault"
)

// Conns lead to the datacenter's services.
type Conns struct {
	Registry, CA, WANGossip, Replicator, FailoverRouter grpc.ClientConnInterface
}

// guarded answers connections that refuse what takes a management token to callers without one. The ca
// takes the gateway's word for who calls, so the gateway must have checked.
func (c Conns) guarded() Conns {
	c.CA = managementOnly{conn: c.CA, method: cav1.CertificateService_CreateJoinToken_FullMethodName}
	return c
}

// public says what clients may call, and where it is served.
func (c Conns) public() Backends {
	return Backends{
		registryv1.KVService_ServiceDesc.ServiceName:           c.Registry,
		registryv1.CatalogService_ServiceDesc.ServiceName:      c.Registry,
		registryv1.OperatorService_ServiceDesc.ServiceName:     c.Registry,
		federationv1.FederationService_ServiceDesc.ServiceName: c.Registry,
		wangossipv1.DatacenterService_ServiceDesc.ServiceName:  c.WANGossip,
		replicatorv1.StatusService_ServiceDesc.ServiceName:     c.Replicator,
		failoverrouterv1.RouterService_ServiceDesc.ServiceName: c.FailoverRouter,
		cav1.CertificateService_GetTrustBundle_FullMethodName:  c.CA,
		cav1.CertificateService_CreateJoinToken_FullMethodName: c.CA,
	}
}

// register serves the same calls below /api/v1; which methods have a path is said in the contracts.
func (c Conns) register(ctx context.Context, mux *runtime.ServeMux) error {
	err := errors.Join(
		registryv1.RegisterKVServiceHandlerClient(ctx, mux, registryv1.NewKVServiceClient(c.Registry)),
		registryv1.RegisterCatalogServiceHandlerClient(ctx, mux, registryv1.NewCatalogServiceClient(c.Registry)),
		registryv1.RegisterOperatorServiceHandlerClient(ctx, mux, registryv1.NewOperatorServiceClient(c.Registry)),
		federationv1.RegisterFederationServiceHandlerClient(ctx, mux, federationv1.NewFederationServiceClient(c.Registry)),
		cav1.RegisterCertificateServiceHandlerClient(ctx, mux, cav1.NewCertificateServiceClient(c.CA)),
		wangossipv1.RegisterDatacenterServiceHandlerClient(ctx, mux, wangossipv1.NewDatacenterServiceClient(c.WANGossip)),
		replicatorv1.RegisterStatusServiceHandlerClient(ctx, mux, replicatorv1.NewStatusServiceClient(c.Replicator)),
		failoverrouterv1.RegisterRouterServiceHandlerClient(ctx, mux, failoverrouterv1.NewRouterServiceClient(c.FailoverRouter)),
	)
	if err != nil {
		return fmt.Errorf("register REST handlers: %w", err)
	}
	return nil
}

// ReasonManagementRequired is the reason of a call that takes a management token.
const ReasonManagementRequired = "MANAGEMENT_TOKEN_REQUIRED"

// managementOnly guards one method of a connection.
type managementOnly struct {
	conn   grpc.ClientConnInterface
	method string
}

func (m managementOnly) check(ctx context.Context, method string) error {
	if method == m.method && !callerFrom(ctx).Management {
		return fault.New(fault.PermissionDenied, ReasonManagementRequired, "%s takes a management token", method).
			WithRemedy("use a management token in KONSUL_TOKEN")
	}
	return nil
}

// Invoke implements grpc.ClientConnInterface.
func (m managementOnly) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if err := m.check(ctx, method); err != nil {
		return err
	}
	return m.conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (m managementOnly) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := m.check(ctx, method); err != nil {
		return nil, err
	}
	return m.conn.NewStream(ctx, desc, method, opts...)
}
