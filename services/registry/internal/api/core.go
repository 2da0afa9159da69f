package api

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/audit"
	"konsul.dev/services/registry/internal/backup"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/lock"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/quota"
	"konsul.dev/services/registry/internal/readlease"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/skew"
	"konsul.dev/services/registry/internal/watch"
)

// Node is what the handlers ask of this server's Raft node.
type Node interface {
	ProposeAll(ctx context.Context, proposals []fsm.Proposal) []fsm.Outcome
	// CheckLeader returns a NO_LEADER fault unless this server believes that it leads. It asks nobody.
	CheckLeader() error
	// EnsureLease returns nil while this server holds the leader lease, which it renews if need be.
	EnsureLease(ctx context.Context) error
	// VerifyLeader returns nil once a majority has confirmed, after the call, that this server leads.
	VerifyLeader(ctx context.Context) error
	// ReadIndex lets a follower answer reads; see raftnode.
	ReadIndex(ctx context.Context, follower string, linearizable, wantsLease bool) (term uint64, lease readlease.Lease, err error)
	Freshness(now time.Time) (time.Time, bool)
	Status() Status
	Servers() []Server
	LeaderID() string
}

// Status is where this server stands.
type Status struct {
	// State is "leader", "follower" or "candidate".
	State       string
	Voter       bool
	Term        uint64
	LastIndex   uint64
	LastTerm    uint64
	CommitIndex uint64
}

// Server is a member of the cluster.
type Server struct {
	ID string
	// Address is its Raft listener.
	Address string
	Voter   bool
}

// Router is what the handlers ask of the forwarding.
type Router interface {
	Resolve(name string) (string, error)
	Stream(ctx context.Context, target string) (grpc.ClientConnInterface, context.Context, error)
	FarError(ctx context.Context, target string, err error) error
	// Leading answers the way to the leader for a stream; a nil connection when it is this server.
	Leading(ctx context.Context) (grpc.ClientConnInterface, context.Context, error)
	// Unary brings a call to where it is answered.
	Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error)
	// Confirm answers an index at or above that of every write acknowledged before the call.
	Confirm(ctx context.Context) (uint64, error)
	// RecallReadLease gives back a read lease, and all before it.
	RecallReadLease(term, number uint64)
	// Propose commits commands wherever the leader is.
	Propose(ctx context.Context, cmds ...*registryv1.Command) []fsm.Outcome
}

// Peers are ways to the datacenter's other servers.
type Peers interface {
	Server(id string) (grpc.ClientConnInterface, error)
}

// Deadlines are those of the catalogue, kept by the leader.
type Deadlines interface {
	// Renew begins a deadline anew; false when there is none of that key.
	Renew(key string) bool
}

// Clocks are those of other servers and datacenters, compared with this server's.
type Clocks interface {
	// Of returns the latest difference of a peer; false when there is none.
	Of(peer skew.Peer) (skew.Difference, bool)
	// Notable returns the differences that are more than they should be, the largest first.
	Notable() []skew.Difference
}

// Core is what the handlers share.
type Core struct {
	ServerID   string
	Version    string
	Node       Node
	Store      record.Store
	Hub        *watch.Hub
	Catalog    *catalog.View
	Tokens     *acl.View
	Federation *federation.View
	KV         kv.Writer
	// MaxTxnBytes bounds a transaction.
	MaxTxnBytes int
	Leases      lease.Writer
	Keeper      *lease.Keeper
	Locks       lock.Writer
	Turns       *lock.Turns
	// Seen says whether a request was carried out.
	Seen      func(requestID string) bool
	Services  *catalog.Writer
	Deadlines Deadlines
	Joiner    *federation.Joiner
	ACL       acl.Writer
	Audit     *audit.Log
	Router    Router
	Peers     Peers
	Cluster   Cluster
	Members   *member.View
	Backups   *backup.Manager
	Clocks    Clocks
	Clock     clock.Clock
	Metrics   *Metrics
	Log       *slog.Logger
	// ResetFile opens the bootstrap of access control once more; see acl.ResetFile.
	ResetFile string
	// Quotas bound what the holder of one token has this server do at a time.
	Quotas *quota.Quotas
	// Sweeping is taken by whoever deletes many rows: one commit of the kind at a time from each server, so that others'
	// writes come in between.
	Sweeping chan struct{}
	// Draining is closed when streams and blocked reads should end.
	Draining <-chan struct{}
}

// Register adds every service to a server.
func (c *Core) Register(s grpc.ServiceRegistrar) {
	registryv1.RegisterKVServiceServer(s, &kvService{Core: c})
	registryv1.RegisterLeaseServiceServer(s, &leaseService{Core: c})
	registryv1.RegisterLockServiceServer(s, &lockService{Core: c})
	registryv1.RegisterCatalogServiceServer(s, &catalogService{Core: c, nodes: newTurns()})
	registryv1.RegisterProposalServiceServer(s, &proposalService{Core: c})
	registryv1.RegisterOperatorServiceServer(s, &operatorService{Core: c})
	registryv1.RegisterBackupServiceServer(s, &backupService{Core: c})
	registryv1.RegisterMemberServiceServer(s, &memberService{Core: c})
	registryv1.RegisterTrustServiceServer(s, &trustService{Core: c})
	registryv1.RegisterTokenServiceServer(s, &tokenService{Core: c})
	registryv1.RegisterACLServiceServer(s, &aclService{Core: c})
	federationv1.RegisterFederationServiceServer(s, &federationService{Core: c})
}

// Denied writes down that a call was denied.
func (c *Core) Denied(ctx context.Context, method string, err error) {
	c.Audit.Denied(ctx, entryOf(ctx, method, err))
}

// Propose commits a command.
func (c *Core) Propose(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	outcome := c.Router.Propose(ctx, cmd)[0]
	return outcome.Result, outcome.Err
}

const maxRequestID = 128

// checkRequestID keeps ids printable: rows that are not requests have keys that are not.
func checkRequestID(id string) error {
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

func (c *Core) writeMeta(index uint64) *registryv1.WriteMeta {
	return &registryv1.WriteMeta{Datacenter: c.Federation.Datacenter(), Index: index}
}

func (c *Core) queryMeta(index uint64) *registryv1.QueryMeta {
	now := c.Clock.Now()
	fresh, known := c.Node.Freshness(now)
	meta := &registryv1.QueryMeta{Datacenter: c.Federation.Datacenter(), Index: index, KnownLeader: known}
	if !fresh.IsZero() {
		meta.LastContactMs = max(0, now.Sub(fresh).Milliseconds())
	}
	return meta
}

// globalMeta is queryMeta of an answer made of global records: in a secondary they are copies of an age.
func (c *Core) globalMeta(index uint64) *registryv1.QueryMeta {
	meta := c.queryMeta(index)
	if copies, ok := c.Federation.Copies(c.Clock.Now()); ok {
		meta.CopyAge = durationpb.New(copies.Age)
	}
	return meta
}

// MetaOf is globalMeta or queryMeta, as the records of an answer are.
func (c *Core) MetaOf(global bool, index uint64) *registryv1.QueryMeta {
	if global {
		return c.globalMeta(index)
	}
	return c.queryMeta(index)
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

func (c *Core) draining() error { return changes.Draining() }
