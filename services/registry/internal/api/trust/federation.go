package trust

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	"konsul.dev/services/registry/internal/api"
)

// ReasonNotFounded says that the datacenter has just started and has no federation record yet.
const ReasonNotFounded = "FEDERATION_NOT_FOUNDED"

// Federation is the FederationService.
type Federation struct {
	federationv1.UnimplementedFederationServiceServer
	*api.Core
}

// GetFederation returns the federation record as this datacenter knows it.
func (s *Federation) GetFederation(context.Context, *federationv1.GetFederationRequest) (*federationv1.GetFederationResponse, error) {
	f := s.Federation.Snapshot()
	if f == nil {
		return nil, fault.New(fault.Unavailable, ReasonNotFounded, "this datacenter has no federation record yet").WithRetryAfter(200 * time.Millisecond)
	}
	return &federationv1.GetFederationResponse{Federation: f, Time: timestamppb.New(s.Clock.Now())}, nil
}
