package proposals

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/readlease"
	"konsul.dev/services/registry/internal/watch"
)

// ReasonUnknownQuestion says that a server asked its leader what that is too old to know.
const ReasonUnknownQuestion = "UNKNOWN_QUESTION"

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
	Recall   func(term, number uint64)
	Draining <-chan struct{}
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

// Ask returns an answer to one question after the other, until the asker has no more or this server
// stops: the asker keeps its stream as long as it can, and a drain waits for every stream.
func (s *Service) Ask(stream grpc.BidiStreamingServer[registryv1.AskRequest, registryv1.AskResponse]) error {
	var answering sync.Mutex
	done := make(chan error, 1)
	go func() { done <- s.answerAll(stream, &answering) }()
	select {
	case err := <-done:
		return err
	case <-s.Draining:
		answering.Lock() // It stays locked: no further question is begun.
		return changes.Draining()
	}
}

func (s *Service) answerAll(stream grpc.BidiStreamingServer[registryv1.AskRequest, registryv1.AskResponse], answering *sync.Mutex) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) || stream.Context().Err() != nil {
			return nil // The asker needs no more answers.
		}
		if err != nil {
			return err
		}
		if !answering.TryLock() {
			return changes.Draining()
		}
		resp, err := s.answer(stream.Context(), req)
		if err == nil {
			err = stream.Send(resp)
		}
		answering.Unlock()
		if err != nil {
			return err
		}
	}
}

func (s *Service) answer(ctx context.Context, req *registryv1.AskRequest) (*registryv1.AskResponse, error) {
	switch question := req.GetQuestion().(type) {
	case *registryv1.AskRequest_Propose:
		resp, err := s.Propose(ctx, question.Propose)
		return &registryv1.AskResponse{Answer: &registryv1.AskResponse_Propose{Propose: resp}}, err
	case *registryv1.AskRequest_ReadIndex:
		resp, err := s.ReadIndex(ctx, question.ReadIndex)
		return &registryv1.AskResponse{Answer: &registryv1.AskResponse_ReadIndex{ReadIndex: resp}}, err
	default:
		return nil, fault.New(fault.Unimplemented, ReasonUnknownQuestion, "this server does not know what is asked").WithRemedy("upgrade it")
	}
}

// RecallReadLease gives back the lease under which the leader lets this server answer reads.
func (s *Service) RecallReadLease(_ context.Context, req *registryv1.RecallReadLeaseRequest) (*registryv1.RecallReadLeaseResponse, error) {
	s.Recall(req.GetTerm(), req.GetNumber())
	return &registryv1.RecallReadLeaseResponse{}, nil
}
