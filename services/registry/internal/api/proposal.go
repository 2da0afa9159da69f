package api

import (
	"context"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
)

type proposalService struct {
	registryv1.UnimplementedProposalServiceServer
	*Core
}

// Propose commits what other servers of the datacenter were asked to.
func (s *proposalService) Propose(ctx context.Context, req *registryv1.ProposeRequest) (*registryv1.ProposeResponse, error) {
	if err := s.Node.CheckLease(); err != nil {
		return nil, err
	}
	proposals := make([]fsm.Proposal, len(req.GetProposals()))
	for i, p := range req.GetProposals() {
		proposals[i] = fsm.Proposal{Command: p.GetCommand(), Claims: p.GetClaims(), Version: p.GetVersion()}
	}
	resp := &registryv1.ProposeResponse{Outcomes: make([]*registryv1.ProposalOutcome, len(proposals))}
	for i, outcome := range s.Node.ProposeAll(ctx, proposals) {
		resp.Outcomes[i] = &registryv1.ProposalOutcome{Outcome: &registryv1.ProposalOutcome_Result{Result: outcome.Result}}
		if outcome.Err != nil {
			resp.Outcomes[i].Outcome = &registryv1.ProposalOutcome_Status{Status: rpc.ToStatus(outcome.Err).Proto()}
		}
	}
	return resp, nil
}

// ReadIndex answers an index above which a server may answer reads for the cluster: whatever was
// acknowledged was published here before.
func (s *proposalService) ReadIndex(ctx context.Context, req *registryv1.ReadIndexRequest) (*registryv1.ReadIndexResponse, error) {
	var term uint64
	err := s.Node.CheckLease()
	switch {
	case err != nil:
	case s.Node.MajorityWith(req.GetServer()):
		// A server at a term has given no vote in a later one. When the asker finds itself at the leader's term
		// after the leader has, nobody else can have been elected before either of them looked.
		term = s.Node.Status().Term
		err = s.Node.CheckLease()
	case req.GetLinearizable():
		err = s.Node.VerifyLease(ctx)
	default:
		err = s.Node.ConfirmLease(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &registryv1.ReadIndexResponse{Index: s.Hub.Index(), Term: term}, nil
}
