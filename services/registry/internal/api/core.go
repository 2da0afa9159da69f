package api

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/audit"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/quota"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// Node is what the handlers ask of this server's Raft node.
type Node interface {
	// CheckLeader returns a NO_LEADER fault unless this server believes that it leads. It asks
	// nobody.
	CheckLeader() error
	// EnsureLease returns nil while this server holds the leader lease, which it renews if need be.
	EnsureLease(ctx context.Context) error
	// Freshness returns up to when this server has the leader's state, and whether it knows a
	// leader.
	Freshness(now time.Time) (time.Time, bool)
}

// Proposer commits commands wherever the leader is.
type Proposer interface {
	Propose(ctx context.Context, cmds ...*registryv1.Command) []fsm.Outcome
}

// Core is what the handlers of all nouns share. Safe for concurrent use once its fields are set.
type Core struct {
	Node       Node
	Proposer   Proposer
	Store      record.Store
	Hub        *watch.Hub
	Tokens     *acl.View
	Federation *federation.View
	Audit      *audit.Log
	Clock      clock.Clock
	// Blocked counts the reads that wait for a change.
	Blocked prometheus.Gauge
	// Quotas bound what the holder of one token has this server do at a time.
	Quotas *quota.Quotas
	// Sweeping is taken by whoever deletes many rows: one commit of the kind at a time from each
	// server, so that others' writes come in between.
	Sweeping chan struct{}
	// Draining is closed when streams and blocked reads should end.
	Draining <-chan struct{}
}

// Permit asks the call's token for permissions that its method's contract leaves to the handler.
func (c *Core) Permit(ctx context.Context, fullMethod string, needs []acl.Need) error {
	a := acl.From(ctx)
	err := a.Check(needs...)
	if err != nil {
		e := audit.EntryOf(ctx, fullMethod, err)
		e.Accessor, e.Resource = a.Accessor(), acl.Names(needs)
		c.Audit.Denied(ctx, e)
	}
	return err
}

// Denied writes down that a call was denied.
func (c *Core) Denied(ctx context.Context, method string, err error) {
	c.Audit.Denied(ctx, audit.EntryOf(ctx, method, err))
}

// Propose commits a command.
func (c *Core) Propose(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	outcome := c.Proposer.Propose(ctx, cmd)[0]
	return outcome.Result, outcome.Err
}

// Commit is Propose for commands that carry a caller's request id.
func (c *Core) Commit(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	if err := CheckRequestID(cmd.GetRequestId()); err != nil {
		return nil, err
	}
	return c.Propose(ctx, cmd)
}

// ManyRows is how many rows make a deletion one of many, which takes turns with others of the kind.
const ManyRows = 100

// Sweep is Commit for commands that delete about so many rows.
func (c *Core) Sweep(ctx context.Context, rows int, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	if rows >= ManyRows {
		select {
		case c.Sweeping <- struct{}{}:
			defer func() { <-c.Sweeping }()
		case <-c.Draining:
			return nil, changes.Draining()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return c.Commit(ctx, cmd)
}

// WithIndex lets a caller block on what is not there.
func WithIndex(err error, index uint64) error {
	if f, ok := fault.As(err); ok {
		return f.WithMeta("index", strconv.FormatUint(index, 10))
	}
	return err
}

const maxRequestID = 128

// CheckRequestID keeps ids printable: rows that are not requests have keys that are not.
func CheckRequestID(id string) error {
	if len(id) > maxRequestID {
		return fault.Invalid("request_id", "is %d bytes long; at most %d are allowed", len(id), maxRequestID)
	}
	for _, r := range id {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return fault.Invalid("request_id", "holds a character that cannot be printed").WithRemedy("use a UUID")
		}
	}
	return nil
}

// WriteMeta is what the answer to a write says of itself.
func (c *Core) WriteMeta(index uint64) *registryv1.WriteMeta {
	return &registryv1.WriteMeta{Datacenter: c.Federation.Datacenter(), Index: index}
}

// QueryMeta is what the answer to a read as of an index says of itself.
func (c *Core) QueryMeta(index uint64) *registryv1.QueryMeta {
	now := c.Clock.Now()
	fresh, known := c.Node.Freshness(now)
	meta := &registryv1.QueryMeta{Datacenter: c.Federation.Datacenter(), Index: index, KnownLeader: known}
	if !fresh.IsZero() {
		meta.LastContactMs = max(0, now.Sub(fresh).Milliseconds())
	}
	return meta
}

// GlobalMeta is QueryMeta of an answer made of global records: in a secondary they are copies of an
// age.
func (c *Core) GlobalMeta(index uint64) *registryv1.QueryMeta {
	meta := c.QueryMeta(index)
	if copies, ok := c.Federation.Copies(c.Clock.Now()); ok {
		meta.CopyAge = durationpb.New(copies.Age)
	}
	return meta
}

// MetaOf is GlobalMeta or QueryMeta, as the records of an answer are.
func (c *Core) MetaOf(global bool, index uint64) *registryv1.QueryMeta {
	if global {
		return c.GlobalMeta(index)
	}
	return c.QueryMeta(index)
}

// StateTime returns up to when what this server shows is known to be the leader's state.
func (c *Core) StateTime() *timestamppb.Timestamp {
	now := c.Clock.Now()
	fresh, known := c.Node.Freshness(now)
	if !known || fresh.IsZero() {
		return timestamppb.New(now)
	}
	return timestamppb.New(fresh)
}
