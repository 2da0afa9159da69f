package registry

import (
	"context"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/raftnode"
	"konsul.dev/services/registry/internal/record"
)

// duties is what a leader sees to when it begins: the federation record, the own datacenter's entry,
// and in the primary the initial management token.
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

// lead retries until everything is in order or the leadership is over.
func (d *duties) lead(ctx context.Context, n *raftnode.Node) {
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
	err := d.store.View(func(r record.Reader) error {
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
		cmd.RequestId = uuid.NewString()
		cmd.Time, cmd.Epoch = timestamppb.New(d.deps.Clock.Now()), d.state.federation.Epoch()
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
