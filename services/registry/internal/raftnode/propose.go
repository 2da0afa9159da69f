package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Reasons of refused writes.
const (
	// ReasonQueueFull says that too many writes wait for their outcome.
	ReasonQueueFull = "WRITE_QUEUE_FULL"
)

// enqueueTimeout bounds the wait for the Raft loop to take a command; a loop that is stuck on its disk
// refuses rather than hangs.
const enqueueTimeout = 2 * time.Second

// waiting is a proposed command and whoever waits for it.
type waiting struct {
	future raft.ApplyFuture
	reply  chan<- outcome
}

type outcome struct {
	result *registryv1.CommandResult
	err    error
}

// Propose commits a command and answers what it did. Commands of concurrent callers share log
// writes and network rounds. Errors are faults, as the package says.
func (n *Node) Propose(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	data, err := proto.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	select {
	case n.slots <- struct{}{}:
	default:
		return nil, fault.New(fault.ResourceExhausted, ReasonQueueFull, "%d writes are waiting already", cap(n.slots)).
			WithRetryAfter(50 * time.Millisecond)
	}
	start := time.Now()
	reply := make(chan outcome, 1)
	n.pending <- waiting{future: n.raft.Apply(data, enqueueTimeout), reply: reply}
	select {
	case o := <-reply:
		n.metrics.propose.Observe(time.Since(start).Seconds())
		return o.result, o.err
	case <-ctx.Done():
		return nil, unknown(context.Cause(ctx))
	case <-n.done:
		return nil, unknown(errShutdown)
	}
}

// complete waits for outcomes in the order of proposals, which is nearly that of the log. It frees
// the callers from waiting on futures, which know no context.
func (n *Node) complete(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-n.pending:
			err := w.future.Error()
			<-n.slots
			w.reply <- n.judge(w.future, err)
		}
	}
}

// judge tells refused from unknown: what has no index never entered the log.
func (n *Node) judge(future raft.ApplyFuture, err error) outcome {
	switch {
	case err == nil:
		switch response := future.Response().(type) {
		case *registryv1.CommandResult:
			return outcome{result: response}
		case error:
			return outcome{err: unknown(response)}
		}
		return outcome{err: unknown(errors.New("no outcome"))}
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress), future.Index() == 0:
		return outcome{err: n.noLeader().Wrap(err)}
	}
	return outcome{err: unknown(err)}
}

func unknown(cause error) error {
	return fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "the write was proposed, its outcome is not known").
		WithRemedy("retry with the same request_id").Wrap(cause)
}

func (n *Node) noLeader() *fault.Error {
	f := fault.New(fault.Unavailable, fault.ReasonNoLeader, "this server does not lead its datacenter").WithRetryAfter(100 * time.Millisecond)
	if leader := n.LeaderID(); leader != "" && leader != n.config.ID {
		f = f.WithMeta("leader", leader)
	}
	return f
}
