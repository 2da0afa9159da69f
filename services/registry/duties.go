package registry

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/raftnode"
	"konsul.dev/services/registry/internal/record"
)

// duties is what a leader sees to: when it begins the federation record, the own datacenter's entry, and
// in the primary the initial management token; and as long as it leads, the membership.
type duties struct {
	*Service
	secret string
}

func (s *Service) duties() (*duties, error) {
	secret, err := readToken(s.cfg.Registry.InitialManagementTokenFile)
	if err != nil {
		return nil, err
	}
	if secret != "" {
		if _, err := acl.Initial(secret, s.cfg.Server.Datacenter, time.Unix(0, 0)); err != nil {
			return nil, err
		}
	}
	return &duties{Service: s, secret: secret}, nil
}

// lead does a leader's duties until the leadership is over.
func (d *duties) lead(ctx context.Context, n *raftnode.Node) {
	select {
	case <-d.wired:
	case <-ctx.Done():
		return
	}
	// More loops that last as long as the leadership belong here.
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { d.cluster.Lead(ctx) })
	loops.Go(func() { d.keepDeadlines(ctx, n) })
	loops.Go(func() { d.reap(ctx, n) })
	loops.Go(func() { d.keepLeases(ctx, n) })
	loops.Go(func() { d.backups.Run(ctx) })
	loops.Go(func() { d.keepLineage(ctx) })
	d.begin(ctx, n)
}

// begin retries until everything is in order or the leadership is over.
func (d *duties) begin(ctx context.Context, n *raftnode.Node) {
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		err := d.attempt(ctx, n)
		if err == nil || ctx.Err() != nil {
			return
		}
		d.deps.Telemetry.Log.Warn("leader duties failed; trying again", obs.KeyError, err)
		if pause.Wait(ctx) != nil {
			return
		}
	}
}

func (d *duties) attempt(ctx context.Context, n *raftnode.Node) error {
	var commands []*registryv1.Command
	founding, err := d.cluster.Founding()
	if err != nil {
		return err
	}
	if founding != nil {
		commands = append(commands, founding)
	}
	err = d.store.View(func(r record.Reader) error {
		cmd, err := d.state.federation.Own().Ensure(r, d.deps.Clock.Now())
		if cmd != nil {
			commands = append(commands, cmd)
		}
		return err
	})
	if err != nil {
		return err
	}
	if d.secret != "" && d.state.federation.IsPrimary() {
		if _, err := d.state.tokens.Resolve(acl.Normalize(d.secret)); err != nil {
			cmd, err := acl.Initial(d.secret, d.cfg.Server.Datacenter, d.deps.Clock.Now())
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

// datacenterID answers the id of this datacenter: derived from its secret, so that every service that
// needs it before the record is founded comes to the same, and a new one where there is no secret.
func (s *Service) datacenterID() string {
	id, err := identity.DatacenterID(s.secret, s.cfg.Server.Datacenter)
	if len(s.secret) == 0 || err != nil {
		return uuid.NewString()
	}
	return id
}
