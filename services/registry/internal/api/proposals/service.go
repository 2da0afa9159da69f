package proposals

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/readlease"
	"konsul.dev/services/registry/internal/watch"
)

// Node is this server's Raft node.
type Node interface {
	ProposeAll(ctx context.Context, proposals []fsm.Proposal) []fsm.Outcome
	CheckLeader() error
	// ReadIndex lets a follower answer reads; see raftnode.
	ReadIndex(ctx context.Context, follower string, linearizable, wantsLease bool) (term uint64, lease readlease.Lease, err error)
}

// Service is the ProposalService, by which the datacenter's servers ask their leader.
type Service struct {
	registryv1.UnimplementedProposalServiceServer
	Node Node
	Hub  *watch.Hub
	// Recall gives back what the leader let this server read under.
	Recall func(term, number uint64)
}

// Propose commits what other servers of the datacenter were asked to.
func (s *Service) Propose(ctx context.Context, req *registryv1.ProposeRequest) (*registryv1.ProposeResponse, error) {
	if err := s.Node.CheckLeader(); err != nil {
		return nil, err
	}
	proposals := make([]fsm.Proposal, len(req.GetProposals()))
	for i, p := range req.GetProposals() {
		proposals[i] = fsm.Proposal{Command: p.GetCommand(), Claims: p.GetClaims(), Version: p.GetVersion()}
	}
	resp := &registryv1.ProposeResponse{Outcomes: make([]*registryv1.ProposalOutcome, len(proposals))}
	for i, outcome := range s.Node.ProposeAll(ctx, proposals) {
		resp.Outcomes[i] = &registryv1.ProposalOutcome{Outcome: &registryv1.ProposalOutcome_Result{Result: fsm.Answer(outcome.Result)}}
		if outcome.Err != nil {
			resp.Outcomes[i].Outcome = &registryv1.ProposalOutcome_Status{Status: rpc.ToStatus(outcome.Err).Proto()}
		}
	}
	return resp, nil
}

// ReadIndex returns the index that a follower's state must have reached to answer reads for the
// cluster.
func (s *Service) ReadIndex(ctx context.Context, req *registryv1.ReadIndexRequest) (*registryv1.ReadIndexResponse, error) {
	term, lease, err := s.Node.ReadIndex(ctx, req.GetServer(), req.GetLinearizable(), req.GetLease())
	if err != nil {
		return nil, err
	}
	// The index is read afterwards. Nothing is written while a lease lasts, so it holds for all of
	// it.
	resp := &registryv1.ReadIndexResponse{Index: s.Hub.Index(), Term: term}
	if lease.Lasts > 0 {
		resp.Lease = &registryv1.ReadLease{Term: lease.Term, Number: lease.Number, Lasts: durationpb.New(lease.Lasts)}
	}
	return resp, nil
}

// RecallReadLease gives back the lease under which the leader lets this server answer reads.
func (s *Service) RecallReadLease(_ context.Context, req *registryv1.RecallReadLeaseRequest) (*registryv1.RecallReadLeaseResponse, error) {
	s.Recall(req.GetTerm(), req.GetNumber())
	return &registryv1.RecallReadLeaseResponse{}, nil
}
