package replication

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
)

// replicatorPatience is how long the replicator has to tell; one that is dead refuses at once, one
// that is paused says nothing.
const replicatorPatience = time.Second

// statusService tells how replication into this datacenter is doing: what the replicator says,
// which knows why it is not connected, or else what is stored here.
type statusService struct {
	replicatorv1.UnimplementedStatusServiceServer
	*Service
}

// GetStatus returns the replicator's word, or the stored cursor's.
func (s *statusService) GetStatus(ctx context.Context, req *replicatorv1.GetStatusRequest) (*replicatorv1.GetStatusResponse, error) {
	asking, cancel := context.WithTimeout(ctx, replicatorPatience)
	defer cancel()
	told, err := s.Replicator.GetStatus(asking, req)
	if err == nil {
		return told, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	resp := &replicatorv1.GetStatusResponse{
		Datacenter: s.Federation.Datacenter(), ReplicatorError: fmt.Sprintf("the replicator does not answer: %v", err),
	}
	if copies, ok := s.Federation.Copies(s.Clock.Now()); ok {
		c := copies.Cursor
		resp.Sources = append(resp.Sources, &replicatorv1.SourceStatus{
			SourceDatacenter: c.GetSourceDatacenter(), ReplicatedIndex: c.GetIndex(), SourceIndex: c.GetIndex(),
			Lag: durationpb.New(copies.Age), FullSyncAt: c.GetFullSyncAt(), Error: resp.GetReplicatorError(),
		})
	}
	return resp, nil
}
