package api

import (
	"context"
	"slices"

	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	"konsul.dev/services/ca/internal/policy"
)

// overWAN are the methods that other datacenters may call.
func overWAN() []string {
	return []string{cav1.EnrollmentService_Join_FullMethodName, cav1.CertificateService_RenewIntermediate_FullMethodName}
}

// Door is an interceptor that refuses every other method to who came through a gateway.
func (h *Handlers) Door(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	tls, _ := rpc.PeerState(ctx)
	if policy.ThroughGateway(tls.ServerName, identity.TrustDomain(h.state().FederationID)) && !slices.Contains(overWAN(), info.FullMethod) {
		err := fault.New(fault.PermissionDenied, "NOT_OVER_WAN", "%s is not served through gateways", info.FullMethod).
			WithRemedy("name the own datacenter's ca in endpoints.ca, by its own address")
		h.Refused(ctx, info.FullMethod, err)
		return nil, err
	}
	return handler(ctx, req)
}
