// Package api is the replicator's gRPC face. It converts and decides nothing. Safe for concurrent
// use.
package api

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"

	"konsul.dev/services/replicator/internal/pull"
)

// Reporter knows how copying is doing.
type Reporter interface {
	// Status returns for every source.
	Status() []pull.Status
}

// Server implements StatusService.
type Server struct {
	replicatorv1.UnimplementedStatusServiceServer

	datacenter string
	reporter   Reporter
}

// New returns a server for the replicator of a datacenter.
func New(datacenter string, reporter Reporter) *Server {
	return &Server{datacenter: datacenter, reporter: reporter}
}

// GetStatus implements StatusService.
func (s *Server) GetStatus(context.Context, *replicatorv1.GetStatusRequest) (*replicatorv1.GetStatusResponse, error) {
	resp := &replicatorv1.GetStatusResponse{Datacenter: s.datacenter}
	for _, status := range s.reporter.Status() {
		source := &replicatorv1.SourceStatus{
			SourceDatacenter: status.Source,
			ReplicatedIndex:  status.ReplicatedIndex,
			SourceIndex:      status.SourceIndex,
			Lag:              durationpb.New(status.Lag),
			Connected:        status.Connected,
			Error:            status.Err,
		}
		if !status.FullSync.IsZero() {
			source.FullSyncAt = timestamppb.New(status.FullSync)
		}
		resp.Sources = append(resp.Sources, source)
	}
	return resp, nil
}
