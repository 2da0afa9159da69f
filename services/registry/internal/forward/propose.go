package forward

import (
	"context"
	"time"

	"google.golang.org/grpc/status"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/coalesce"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/readlease"
)

const (
	// tripTimeout bounds a question to the leader that carries other calls. Callers have deadlines
	// of their own.
	tripTimeout = 10 * time.Second
	// tripsToLeader is how many batches of proposals may be on their way to the leader at once.
	tripsToLeader = 1
	tripItems     = 1024
	tripBytes     = 2 << 20
	// mostOperations and mostBytes bound one command. What requests have limits of their own for
	// stays below.
	mostOperations = 20_000
	mostBytes      = 8 << 20
)

// proposal is a command on its way to the leader and whoever waits for its outcome.
type proposal struct {
	fsm.Proposal
	reply chan fsm.Outcome
}

// Propose commits commands wherever the leader is, each by itself, and returns the outcome of each.
// It waits through an election. A command without a request id gets one, so that repeating it is
// safe.
func (r *Router) Propose(ctx context.Context, cmds ...*registryv1.Command) []fsm.Outcome {
	outcomes := make([]fsm.Outcome, len(cmds))
	proposals := make([]fsm.Proposal, len(cmds))
	open := make([]int, 0, len(cmds))
	admit := fsm.Admitting(r.Admit)
	for i, cmd := range cmds {
		if cmd.GetRequestId() == "" {
			cmd.RequestId = r.NewID()
		}
		sign(ctx, cmd, admit)
		proposals[i], outcomes[i].Err = fsm.NewProposal(cmd)
		if outcomes[i].Err == nil {
			outcomes[i].Err = bounded(len(cmd.GetOperations())+len(cmd.GetOtherwise()), len(proposals[i].Command))
		}
		if outcomes[i].Err == nil {
			outcomes[i].Err = admit(proposals[i].Version)
		}
		if outcomes[i].Err == nil {
			open = append(open, i)
		}
	}
	deadline := time.Now().Add(r.patience)
	pause := backoff.New(10*time.Millisecond, 100*time.Millisecond)
	sent := make([]bool, len(cmds))
	for {
		r.attempt(ctx, proposals, outcomes, open)
		open = failed(outcomes, open)
		for _, i := range open {
			sent[i] = sent[i] || unsure(outcomes[i].Err)
		}
		if len(open) == 0 || ctx.Err() != nil || time.Now().After(deadline) || pause.Wait(ctx) != nil {
			break
		}
	}
	inVain := time.Now().After(deadline)
	for i := range outcomes {
		if inVain {
			outcomes[i].Err = r.leaderless(outcomes[i].Err)
		}
		outcomes[i].Err = honest(outcomes[i].Err, sent[i])
		if outcomes[i].Result.GetFailedReason() == fsm.FailedReused {
			outcomes[i] = fsm.Outcome{Err: reused(cmds[i].GetRequestId())}
		}
	}
	return outcomes
}

// bounded refuses a command that would hold up everybody else's for seconds.
func bounded(operations, bytes int) error {
	if operations <= mostOperations && bytes <= mostBytes {
		return nil
	}
	return fault.New(fault.InvalidArgument, ReasonCommandTooLarge, "the request comes to %d changes and %d bytes; at most %d and %d are allowed",
		operations, bytes, mostOperations, mostBytes).WithRemedy("make several requests of it")
}

// failed returns which of the outcomes may come out otherwise.
func failed(outcomes []fsm.Outcome, open []int) []int {
	var again []int
	for _, i := range open {
		if err := outcomes[i].Err; err != nil && repeatable(err) {
			again = append(again, i)
		}
	}
	return again
}

// attempt proposes the open ones once.
func (r *Router) attempt(ctx context.Context, proposals []fsm.Proposal, outcomes []fsm.Outcome, open []int) {
	chosen := make([]fsm.Proposal, len(open))
	for n, i := range open {
		chosen[n] = proposals[i]
	}
	err := r.Leadership.CheckLeader()
	if err == nil {
		for n, outcome := range r.Leadership.ProposeAll(ctx, chosen) {
			outcomes[open[n]] = outcome
		}
		return
	}
	leader := r.Leadership.LeaderID()
	if leader == "" || leader == r.ServerID {
		for _, i := range open {
			outcomes[i].Err = err
		}
		return
	}
	for n, outcome := range r.proposeAt(ctx, leader, chosen) {
		outcomes[open[n]] = outcome
	}
}

func (r *Router) proposeAt(ctx context.Context, leader string, proposals []fsm.Proposal) []fsm.Outcome {
	outcomes := make([]fsm.Outcome, len(proposals))
	queued := make([]proposal, len(proposals))
	for i, p := range proposals {
		queued[i] = proposal{p, make(chan fsm.Outcome, 1)}
	}
	if !r.queueTo(leader).Add(queued...) {
		for i := range outcomes {
			outcomes[i].Err = queueFull()
		}
		return outcomes
	}
	for i, q := range queued {
		select {
		case outcomes[i] = <-q.reply:
		case <-ctx.Done():
			outcomes[i].Err = unknown(context.Cause(ctx))
		}
	}
	return outcomes
}

func queueFull() error {
	return fault.New(fault.ResourceExhausted, ReasonQueueFull, "too many writes wait for the leader already").WithRetryAfter(50 * time.Millisecond)
}

// queueTo returns the queue of proposals that wait to go to a leader.
func (r *Router) queueTo(leader string) *coalesce.Queue[proposal] {
	r.mu.Lock()
	defer r.mu.Unlock()
	q, ok := r.queues[leader]
	if !ok {
		q = coalesce.NewQueue(coalesce.Params[proposal]{
			Trips: tripsToLeader, Capacity: r.MaxInFlight, MaxWeight: r.MaxInFlightBytes,
			Weigh: proposal.weight, Take: take, Do: func(batch []proposal) { r.carry(leader, batch) },
		})
		r.queues[leader] = q
	}
	return q
}

func (p proposal) weight() int { return len(p.Command) }

// take returns how many of the waiting proposals make a batch.
func take(waiting []proposal) int {
	size := 0
	for n, p := range waiting {
		size += p.weight()
		if n == tripItems || n > 0 && size > tripBytes {
			return n
		}
	}
	return len(waiting)
}

// carry brings a batch to the leader and the outcomes back.
func (r *Router) carry(leader string, batch []proposal) {
	req := &registryv1.ProposeRequest{Proposals: make([]*registryv1.Proposal, len(batch))}
	for i, p := range batch {
		req.Proposals[i] = &registryv1.Proposal{Command: p.Command, Claims: p.Claims, Version: p.Version}
	}
	resp, err := r.proposeTo(leader, req)
	if err == nil && len(resp.GetOutcomes()) != len(batch) {
		err = fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "the leader answered %d of %d proposals", len(resp.GetOutcomes()), len(batch))
	}
	for i, p := range batch {
		outcome := fsm.Outcome{Err: err}
		if err == nil {
			answered := resp.GetOutcomes()[i]
			outcome.Result = answered.GetResult()
			if st := answered.GetStatus(); st != nil {
				outcome.Err = rpc.FromStatus(status.ErrorProto(st))
			}
		}
		p.reply <- outcome
	}
}

func (r *Router) proposeTo(leader string, req *registryv1.ProposeRequest) (*registryv1.ProposeResponse, error) {
	ctx, client, done, err := r.asking(leader)
	if err != nil {
		return nil, err
	}
	defer done()
	resp, err := client.Propose(ctx, req)
	return resp, moved(ctx, err)
}

// Confirm returns an index at or above that of every write acknowledged before the call, by the
// leader's word; Unavailable when there is no leader now.
func (r *Router) Confirm(ctx context.Context) (uint64, error) {
	err := r.Leadership.CheckLeader()
	if err == nil {
		if err = r.Leadership.EnsureLease(ctx); err != nil {
			return 0, err
		}
		return r.Published(), nil
	}
	if leader := r.Leadership.LeaderID(); leader == "" || leader == r.ServerID {
		return 0, err
	}
	return r.readIndex(ctx, false)
}

// RecallReadLease gives back the lease of a number that the leader of a term gave, and all before
// it.
func (r *Router) RecallReadLease(term, number uint64) { r.reads.Recall(term, number) }

// readIndex returns an index at or above that of every write acknowledged before the call. Callers
// share questions to the leader, and need none while this server holds a read lease.
func (r *Router) readIndex(ctx context.Context, linearizable bool) (uint64, error) {
	rounds := &r.verified
	if !linearizable {
		if index, ok := r.reads.Index(); ok {
			return index, nil
		}
		rounds = &r.leased
	}
	return rounds.Join(ctx, func() (uint64, error) { return r.askReadIndex(linearizable) })
}

func (r *Router) askReadIndex(linearizable bool) (uint64, error) {
	leader := r.Leadership.LeaderID()
	if leader == "" || leader == r.ServerID {
		return 0, errLeaderMoved
	}
	asked := r.reads.Elapsed()
	ctx, client, done, err := r.asking(leader)
	if err != nil {
		return 0, err
	}
	defer done()
	resp, err := client.ReadIndex(ctx, &registryv1.ReadIndexRequest{Linearizable: linearizable, Server: r.ServerID, Lease: !linearizable})
	if err != nil {
		return 0, moved(ctx, err)
	}
	if resp.GetTerm() != 0 && resp.GetTerm() != r.Leadership.Term() {
		return 0, errLeaderMoved
	}
	lease := resp.GetLease()
	r.reads.Take(readlease.Lease{Term: lease.GetTerm(), Number: lease.GetNumber(), Lasts: lease.GetLasts().AsDuration()}, resp.GetIndex(), asked)
	return resp.GetIndex(), nil
}
