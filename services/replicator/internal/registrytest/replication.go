package registrytest

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/fault"
)

// GetCursor implements ReplicationService.
func (r *Registry) GetCursor(_ context.Context, req *federationv1.GetCursorRequest) (*federationv1.GetCursorResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &federationv1.GetCursorResponse{Cursor: r.cursors[req.GetSourceDc()]}, nil
}

// ApplyReplicated implements ReplicationService.
func (r *Registry) ApplyReplicated(_ context.Context, req *federationv1.ApplyReplicatedRequest) (*federationv1.ApplyReplicatedResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stale > 0 {
		r.stale--
		return nil, fault.New(fault.Aborted, "CURSOR_MOVED", "this server has not caught up")
	}
	if stored := r.cursors[req.GetSourceDc()].GetIndex(); stored != req.GetExpectedIndex() {
		return nil, fault.New(fault.Aborted, "CURSOR_MOVED", "the cursor is %d, not %d", stored, req.GetExpectedIndex())
	}
	for _, e := range req.GetEntries() {
		if e.GetDeleted() {
			delete(r.rows, rowKey(e))
		} else {
			r.rows[rowKey(e)] = e
		}
	}
	r.cursors[req.GetSourceDc()] = req.GetCursor()
	r.applied = append(r.applied, req)
	return &federationv1.ApplyReplicatedResponse{Index: uint64(len(r.applied))}, nil
}

// Replicate implements ReplicationService.
func (r *Registry) Replicate(req *federationv1.ReplicationRequest, stream grpc.ServerStreamingServer[federationv1.ReplicationResponse]) error {
	r.mu.Lock()
	r.requests = append(r.requests, req)
	cut := r.cut
	err := r.refuse(req)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	sent := uint64(req.GetLastReplicatedIndex())
	heartbeat := time.NewTicker(req.GetHeartbeat().AsDuration())
	defer heartbeat.Stop()
	for {
		r.mu.Lock()
		changed, mute, ended := r.changed, r.mute, r.cut != cut
		messages := r.since(sent)
		index := r.index
		r.mu.Unlock()
		if ended {
			return nil
		}
		if !mute {
			for _, m := range messages {
				if err := stream.Send(m); err != nil {
					return err
				}
			}
			sent = index
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-changed:
		case <-heartbeat.C:
		}
	}
}

// How often a stream may be asked to speak.
const minHeartbeat, maxHeartbeat = 100 * time.Millisecond, 10 * time.Minute

func (r *Registry) refuse(req *federationv1.ReplicationRequest) error {
	heartbeat := req.GetHeartbeat().AsDuration()
	switch {
	case heartbeat < minHeartbeat || heartbeat > maxHeartbeat:
		return fault.Invalid("heartbeat", "%s is not between %s and %s", heartbeat, minHeartbeat, maxHeartbeat)
	case req.GetSourceDc() != r.datacenter:
		return fault.New(fault.FailedPrecondition, "WRONG_SOURCE", "this is %s", r.datacenter)
	case req.GetEpoch() > r.record.GetEpoch() && !r.unaware:
		return fault.New(fault.FailedPrecondition, "EPOCH_SUPERSEDED", "only at epoch %d", r.record.GetEpoch())
	case req.GetFederationId() != r.record.GetId():
		return fault.New(fault.FailedPrecondition, "OTHER_FEDERATION", "another federation")
	case uint64(req.GetLastReplicatedIndex()) > r.index:
		return fault.New(fault.FailedPrecondition, "SOURCE_INDEX_BEHIND", "only at %d", r.index)
	case r.record.GetPrimaryDatacenter() != r.datacenter:
		return fault.New(fault.FailedPrecondition, "NOT_PRIMARY", "%s is no primary", r.datacenter)
	}
	return nil
}

// since returns what to send after an index: at least one message, of which the last is complete.
func (r *Registry) since(index uint64) []*federationv1.ReplicationResponse {
	bare := &federationv1.ReplicationResponse{
		CurrentIndex: int64(r.index), Epoch: r.record.GetEpoch(), SourceTime: timestamppb.Now(),
	}
	var entries []*federationv1.ReplicatedEntry
	for _, e := range r.log {
		if uint64(e.GetModifyIndex()) > index {
			entries = append(entries, e)
		}
	}
	var messages []*federationv1.ReplicationResponse
	for r.piece > 0 && len(entries) > r.piece {
		m := proto.CloneOf(bare)
		m.Entries = entries[:r.piece]
		entries = entries[r.piece:]
		messages = append(messages, m)
	}
	last := proto.CloneOf(bare)
	last.Entries, last.Complete = entries, true
	return append(messages, last)
}
