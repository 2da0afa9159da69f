package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
	"konsul.dev/services/registry/internal/federation"
)

const (
	// foundAsFile holds the history that a new registry goes on with: an operator's word that the one which
	// the federation knows is gone.
	foundAsFile = "found-as"
	// unconfirmedFile is there from the founding until another datacenter knows the registry by its history.
	unconfirmedFile = "unconfirmed"

	// poolPatience is how long a founder looks for the other datacenters. One that finds nobody founds: a
	// datacenter stands alone.
	poolPatience = 2 * time.Second
	askTimeout   = 2 * time.Second
	// A history is compared often until somebody has answered, then now and then.
	compareSoon  = time.Second
	compareLater = 30 * time.Second
)

// foundAs returns the history to go on with, empty when no operator said so.
func (s *Service) foundAs() (string, error) {
	text, err := os.ReadFile(s.dir(foundAsFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the history to found: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// mayFound refuses to found a second registry under this datacenter's name: the other datacenters are
// asked by which history they know the first. It is called by a server without state.
func (s *Service) mayFound(ctx context.Context) error {
	if s.cfg.Server.WAN.Enabled {
		for begun := time.Now(); ; {
			word := s.askLineage(ctx)
			if word.lineage != "" && word.lineage != s.state.federation.Own().FoundAs {
				return s.secondRegistry(word)
			}
			if word.answered || word.alone || ctx.Err() != nil || time.Since(begun) > poolPatience {
				break
			}
			select {
			case <-ctx.Done():
			case <-s.deps.Clock.After(100 * time.Millisecond):
			}
		}
	}
	return identity.WriteFile(s.dir(unconfirmedFile), nil)
}

func (s *Service) secondRegistry(word word) error {
	return fault.New(fault.FailedPrecondition, federation.ReasonOtherLineage,
		"%s knows datacenter %s by a registry with history %s, and this server would be a second one", word.by, s.cfg.Server.Datacenter, word.lineage).
		WithField("server.datacenter").
		WithRemedy("join the servers that are there with registry.join, or choose another name; if they are lost for good, write the history's id into " + s.dir(foundAsFile))
}

// word is what other datacenters say of this one's registry.
type word struct {
	// lineage is the history by which they know it, by is who said so; empty: nobody knows one.
	lineage, by string
	// answered is set when another datacenter answered, alone when none is known and gossip is not to find any.
	answered, alone bool
}

// askLineage asks the datacenters that are known, and those that gossip sees, by which history they know
// this one. A history that is not the own one is the answer to tell.
func (s *Service) askLineage(ctx context.Context) word {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	own, names := s.cfg.Server.Datacenter, s.state.federation.Known()
	list, _ := wangossipv1.NewDatacenterServiceClient(s.gossip).ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{}) // May be away.
	for _, dc := range list.GetDatacenters() {
		if dc.GetState() == wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE {
			names = append(names, dc.GetName())
		}
	}
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == own })
	wan := s.cfg.Server.WAN
	answer := word{alone: len(names)+len(wan.Members)+len(wan.Join) == 0}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, name := range names {
		asking.Go(func() {
			lineage, err := s.lineageAt(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			answer.answered = answer.answered || err == nil
			if lineage != "" && (answer.lineage == "" || lineage != s.state.federation.Lineage()) {
				answer.lineage, answer.by = lineage, name
			}
		})
	}
	asking.Wait()
	return answer
}

// lineageAt asks one datacenter by which history it knows this one's registry.
func (s *Service) lineageAt(ctx context.Context, name string) (string, error) {
	conn, err := s.pool.Datacenter(name)
	if err != nil {
		return "", err
	}
	resp, err := federationv1.NewFederationServiceClient(conn).GetFederation(ctx, &federationv1.GetFederationRequest{})
	if err != nil {
		return "", err
	}
	for _, m := range resp.GetFederation().GetMembers() {
		if m.GetName() == s.cfg.Server.Datacenter {
			return m.GetLineageId(), nil
		}
	}
	return "", nil
}

// keepLineage compares, as long as this server leads, its history with the one by which the others know this
// datacenter. Until somebody has confirmed it, a server that founded the registry gives way to a history
// that was there before. Afterwards it does not: one datacenter that lies must not end another.
func (d *duties) keepLineage(ctx context.Context) {
	if !d.cfg.Server.WAN.Enabled {
		return
	}
	pause := compareSoon
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.deps.Clock.After(pause):
		}
		word, own := d.askLineage(ctx), d.state.federation.Lineage()
		if word.answered {
			pause = compareLater
		}
		if own == "" || word.lineage == "" {
			continue
		}
		if word.lineage == own {
			if err := os.Remove(d.dir(unconfirmedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
				d.deps.Telemetry.Log.Warn("could not note that the registry's history is known", obs.KeyError, err)
			}
			continue
		}
		err := d.secondRegistry(word)
		d.replication.Metrics.OtherLineage()
		d.deps.Telemetry.Log.Error("two registries go by this datacenter's name", obs.KeyError, err, "runbook", "docs/runbooks/registry-second.md")
		if _, statErr := os.Stat(d.dir(unconfirmedFile)); statErr == nil {
			d.deps.Fail(err)
			return
		}
	}
}
