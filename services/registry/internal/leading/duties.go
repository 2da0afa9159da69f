package leading

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/obs"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/record"
)

// Node is this server's Raft node.
type Node interface {
	Propose(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error)
	ProposeAll(ctx context.Context, proposals []fsm.Proposal) []fsm.Outcome
}

// Params are what the duties are done with.
type Params struct {
	Datacenter string
	// InitialToken is the secret of a management token that the primary has from its start; empty:
	// none.
	InitialToken string
	// Founding returns the command that founds the cluster, nil when it is founded.
	Founding func() (*registryv1.Command, error)
	// Loops run as long as this server leads.
	Loops []func(context.Context)

	Store      record.Store
	Federation *federation.View
	Tokens     *acl.View
	Catalog    *catalog.View
	Services   *catalog.Writer
	Deadlines  *lease.Expirer
	Leases     *lease.Keeper
	// Expired counts the deadlines of the catalogue that passed, by kind.
	Expired *prometheus.CounterVec
	Clock   clock.Clock
	Log     *slog.Logger
}

// Duties are what a leader sees to.
type Duties struct{ Params }

// New returns duties that nobody does yet.
func New(p Params) *Duties { return &Duties{p} }

// CheckInitialToken reports what is wrong with the secret of an initial token.
func CheckInitialToken(secret, datacenter string) error {
	if secret == "" {
		return nil
	}
	_, err := acl.Initial(secret, datacenter, time.Unix(0, 0))
	return err
}

// Lead does the duties until ctx ends.
func (d *Duties) Lead(ctx context.Context, n Node) {
	var loops sync.WaitGroup
	defer loops.Wait()
	for _, loop := range d.Loops {
		loops.Go(func() { loop(ctx) })
	}
	loops.Go(func() { d.keepDeadlines(ctx, n) })
	loops.Go(func() { d.reapTokens(ctx, n) })
	loops.Go(func() { d.keepLeases(ctx, n) })
	d.persist(ctx, "begin", func() error { return d.Begin(ctx, n) })
}

// persist repeats a duty until it succeeds or the leadership is over.
func (d *Duties) persist(ctx context.Context, duty string, do func() error) {
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		d.Log.Warn("a duty of the leader failed; trying again", "duty", duty, obs.KeyError, err)
		if pause.Wait(ctx) != nil {
			return
		}
	}
}

// Begin commits what a registry must hold and does not yet: the cluster's founding, the federation
// record with the own datacenter's entry, and in the primary the initial management token.
func (d *Duties) Begin(ctx context.Context, n Node) error {
	var commands []*registryv1.Command
	founding, err := d.Founding()
	if err != nil {
		return err
	}
	if founding != nil {
		commands = append(commands, founding)
	}
	err = d.Store.View(func(r record.Reader) error {
		cmd, err := d.Federation.Own().Ensure(r, d.Clock.Now())
		if cmd != nil {
			commands = append(commands, cmd)
		}
		return err
	})
	if err != nil {
		return err
	}
	if d.InitialToken != "" && d.Federation.IsPrimary() {
		if _, err := d.Tokens.Resolve(acl.Normalize(d.InitialToken)); err != nil {
			cmd, err := acl.Initial(d.InitialToken, d.Datacenter, d.Clock.Now())
			if err != nil {
				return err
			}
			commands = append(commands, cmd)
		}
	}
	for _, cmd := range commands {
		if _, err := n.Propose(ctx, cmd); err != nil {
			return err
		}
	}
	return nil
}
