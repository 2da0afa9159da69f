package api

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
	"konsul.dev/services/registry/internal/fsm"
)

// ReasonUnknownQuestion says that a server asked its leader what that is too old to know.
const ReasonUnknownQuestion = "UNKNOWN_QUESTION"

type proposalService struct {
	registryv1.UnimplementedProposalServiceServer
	*Core
}

// Propose commits what other servers of the datacenter were asked to.
func (s *proposalService) Propose(ctx context.Context, req *registryv1.ProposeRequest) (*registryv1.ProposeResponse, error) {
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

// ReadIndex returns the index that a follower's state must have reached to answer reads for the cluster.
func (s *proposalService) ReadIndex(ctx context.Context, req *registryv1.ReadIndexRequest) (*registryv1.ReadIndexResponse, error) {
	term, lease, err := s.Node.ReadIndex(ctx, req.GetServer(), req.GetLinearizable(), req.GetLease())
	if err != nil {
		return nil, err
	}
	// The index is read afterwards. Nothing is written while a lease lasts, so it holds for all of it.
	resp := &registryv1.ReadIndexResponse{Index: s.Hub.Index(), Term: term}
	if lease.Lasts > 0 {
		resp.Lease = &registryv1.ReadLease{Term: lease.Term, Number: lease.Number, Lasts: durationpb.New(lease.Lasts)}
	}
	return resp, nil
}

// Ask returns an answer to one question after the other, until the asker has no more or this server stops:
// the asker keeps its stream as long as it can, and a drain waits for every stream.
func (s *proposalService) Ask(stream grpc.BidiStreamingServer[registryv1.AskRequest, registryv1.AskResponse]) error {
	var answering sync.Mutex
	done := make(chan error, 1)
	go func() { done <- s.answerAll(stream, &answering) }()
	select {
	case err := <-done:
		return err
	case <-s.Draining:
		answering.Lock() // It stays locked: no further question is begun.
		return s.draining()
	}
}

func (s *proposalService) answerAll(stream grpc.BidiStreamingServer[registryv1.AskRequest, registryv1.AskResponse], answering *sync.Mutex) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) || stream.Context().Err() != nil {
			return nil // The asker needs no more answers.
		}
		if err != nil {
			return err
		}
		if !answering.TryLock() {
			return s.draining()
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

func (s *proposalService) answer(ctx context.Context, req *registryv1.AskRequest) (*registryv1.AskResponse, error) {
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
func (s *proposalService) RecallReadLease(_ context.Context, req *registryv1.RecallReadLeaseRequest) (*registryv1.RecallReadLeaseResponse, error) {
	s.Router.RecallReadLease(req.GetTerm(), req.GetNumber())
	return &registryv1.RecallReadLeaseResponse{}, nil
}
