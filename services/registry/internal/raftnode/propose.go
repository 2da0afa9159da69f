package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/coalesce"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
)

// Reasons of refused writes.
const (
	// ReasonQueueFull says that too many writes wait for their outcome.
	ReasonQueueFull = "WRITE_QUEUE_FULL"
)

const (
	// enqueueTimeout bounds the wait for the Raft loop to take an entry; a loop that is stuck on
	// its disk refuses rather than hangs.
	enqueueTimeout = 2 * time.Second
	// entriesInFlight is how many entries may wait to be committed; what comes meanwhile shares the
	// next one. With one, entries are as large as they get: measured with three servers on two
	// cores, two cost a fifth more CPU for each write and won no time.
	entriesInFlight = 1
	// entryBytes bounds the commands of one entry, but for one that is larger by itself.
	entryBytes = 1 << 20
)

// waiting is a proposal and whoever waits for its outcome.
type waiting struct {
	proposal fsm.Proposal
	reply    chan<- fsm.Outcome
}

func (n *Node) newQueue() *coalesce.Queue[waiting] {
	return coalesce.NewQueue(coalesce.Params[waiting]{
		Trips: entriesInFlight, Capacity: n.config.MaxInFlight, Take: together, Do: n.commit,
		MaxWeight: n.config.MaxInFlightBytes, Weigh: func(w waiting) int { return len(w.proposal.Command) },
	})
}

// together returns how many of the queued proposals share the next entry (group commit).
func together(queued []waiting) int {
	return fsm.Together(queued, func(w waiting) fsm.Proposal { return w.proposal }, entryBytes)
}

// Propose commits a command and returns what it did.
func (n *Node) Propose(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	proposal, err := fsm.NewProposal(cmd)
	if err != nil {
		return nil, err
	}
	outcome := n.ProposeAll(ctx, []fsm.Proposal{proposal})[0]
	return outcome.Result, outcome.Err
}

// ProposeAll commits commands, each by itself, and returns the outcome of each. What is proposed
// while earlier entries are in flight shares the next one (group commit). Errors are faults, as the
// package says.
func (n *Node) ProposeAll(ctx context.Context, proposals []fsm.Proposal) []fsm.Outcome {
	start := time.Now()
	outcomes := make([]fsm.Outcome, len(proposals))
	replies := make([]chan fsm.Outcome, len(proposals))
	queued := make([]waiting, 0, len(proposals))
	admit := fsm.Admitting(n.admit)
	for i, p := range proposals {
		replies[i] = make(chan fsm.Outcome, 1)
		// An older member would stop at a command it does not know.
		if err := admit(p.Version); err != nil {
			replies[i] <- fsm.Outcome{Err: err}
			continue
		}
		queued = append(queued, waiting{p, replies[i]})
	}
	if !n.queue.Add(queued...) {
		refused := fault.New(fault.ResourceExhausted, ReasonQueueFull, "%d writes are waiting already", n.queue.Held()).
			WithRetryAfter(50 * time.Millisecond).WithRemedy("write more slowly, or raise registry.raft.max_in_flight and max_in_flight_bytes")
		for i := range outcomes {
			outcomes[i].Err = refused
		}
		return outcomes
	}
	for i, reply := range replies {
		select {
		case outcomes[i] = <-reply:
			n.metrics.propose.Observe(time.Since(start).Seconds())
		case <-ctx.Done():
			outcomes[i].Err = unknown(context.Cause(ctx))
		}
	}
	return outcomes
}

// commit carries an entry through the log. The Raft library resolves every future but those it had
// committed and not applied when it was told to end: Stop waits for them before.
func (n *Node) commit(batch []waiting) {
	data, err := n.entry(batch)
	if err != nil {
		n.reply(batch, nil, err)
		return
	}
	n.metrics.entry.Observe(float64(len(batch)))
	defer n.lessor.Pause()()
	future := n.raft.Apply(data, enqueueTimeout)
	if err := future.Error(); err != nil {
		n.reply(batch, nil, n.judge(future, err))
		return
	}
	switch response := future.Response().(type) {
	case []*registryv1.CommandResult:
		n.reply(batch, response, nil)
	case error:
		n.reply(batch, nil, unknown(response))
	default:
		n.reply(batch, nil, unknown(errors.New("no outcome")))
	}
}

func (n *Node) entry(batch []waiting) ([]byte, error) {
	at, epoch := n.stamp()
	entry := &registryv1.Command{Time: timestamppb.New(at), Epoch: epoch, Batch: make([][]byte, len(batch))}
	for i, w := range batch {
		entry.Batch[i] = w.proposal.Command
	}
	data, err := entry.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode log entry: %w", err)
	}
	return data, nil
}

func (n *Node) reply(batch []waiting, results []*registryv1.CommandResult, err error) {
	for i, w := range batch {
		outcome := fsm.Outcome{Err: err}
		if err == nil {
			outcome.Result = results[i]
		}
		w.reply <- outcome
	}
}

// judge tells refused from unknown: what has no index never entered the log.
func (n *Node) judge(future raft.ApplyFuture, err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress), future.Index() == 0:
		return n.noLeader().Wrap(err)
	}
	return unknown(err)
}

func unknown(cause error) error {
	return fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "the write was proposed, its outcome is not known").
		WithRemedy("repeat it with the same request id (--request-id), or look whether it was done").Wrap(cause)
}

func (n *Node) noLeader() *fault.Error {
	leader := n.LeaderID()
	if r := n.refusal.Load(); r != nil && r.leader == leader {
		return r.fault
	}
	f := fault.New(fault.Unavailable, fault.ReasonNoLeader, "this server does not lead its datacenter").
		WithRetryAfter(100 * time.Millisecond).WithRemedy("ask again; `konsulctl cluster status` shows which servers are up")
	if leader != "" && leader != n.config.ID {
		f = f.WithMeta("leader", leader)
	}
	n.refusal.Store(&refusal{leader, f})
	return f
}

// refusal is what a server says that does not lead, made once for each leader: a follower's default
// reads ask whether it leads.
type refusal struct {
	leader string
	fault  *fault.Error
}
