package lineage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
	"konsul.dev/services/registry/internal/federation"
)

const (
	// foundAsFile holds the lineage that a new registry goes on with: an operator's word that the
	// one which the federation knows is gone.
	foundAsFile = "found-as"
	// unconfirmedFile is there from the founding until another datacenter knows the registry by its
	// lineage.
	unconfirmedFile = "unconfirmed"

	// poolPatience is how long a founder looks for the other datacenters. One that finds nobody
	// founds: a datacenter stands alone.
	poolPatience = 2 * time.Second
	askTimeout   = 2 * time.Second
	// A lineage is compared often until somebody has answered, then now and then.
	compareSoon  = time.Second
	compareLater = 30 * time.Second
)

// Params are what a Guard is made of.
type Params struct {
	// Dir holds the files by which an operator or an earlier run says something about the lineage.
	Dir, Datacenter string
	// WAN reports whether this datacenter is to meet others at all, and Expected how many members
	// of the federation the configuration names.
	WAN      bool
	Expected int

	View *federation.View
	// Connect returns a connection to another datacenter.
	Connect func(datacenter string) (grpc.ClientConnInterface, error)
	// Gossip knows which datacenters there are.
	Gossip wangossipv1.DatacenterServiceClient
	// Met counts that another registry goes by this datacenter's name; Fail ends the process.
	Met   func()
	Fail  func(error)
	Clock clock.Clock
	Log   *slog.Logger
}

// Guard keeps two registries from going by one datacenter's name. Safe for concurrent use.
type Guard struct{ Params }

// New returns a guard.
func New(p Params) *Guard { return &Guard{p} }

func (g *Guard) file(name string) string { return filepath.Join(g.Dir, name) }

// FoundAs returns the lineage that a new registry in dir goes on with; empty when no operator said
// so.
func FoundAs(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, foundAsFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the lineage to found: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// MayFound refuses to found a second registry under this datacenter's name: the other datacenters
// are asked by which lineage they know the first. It is called by a server without state.
func (g *Guard) MayFound(ctx context.Context) error {
	if g.WAN {
		for begun := time.Now(); ; {
			heard := g.ask(ctx)
			if heard.lineage != "" && heard.lineage != g.View.Own().FoundAs {
				return g.second(heard)
			}
			if heard.answered || heard.alone || ctx.Err() != nil || time.Since(begun) > poolPatience {
				break
			}
			select {
			case <-ctx.Done():
			case <-g.Clock.After(100 * time.Millisecond):
			}
		}
	}
	return identity.WriteFile(g.file(unconfirmedFile), nil)
}

func (g *Guard) second(heard answer) error {
	return fault.New(fault.FailedPrecondition, federation.ReasonOtherLineage,
		"%s knows datacenter %s by a registry with lineage %s, and this server would be a second one", heard.by, g.Datacenter, heard.lineage).
		WithField("server.datacenter").
		WithRemedy("join the servers that are there with registry.join, or choose another name; if they are lost for good, write the lineage's id into " + g.file(foundAsFile))
}

// answer is what other datacenters say of this one's registry.
type answer struct {
	// lineage is the lineage by which they know it, by is who said so; empty: nobody knows one.
	lineage, by string
	// answered is set when another datacenter answered, alone when none is known and gossip is not
	// to find any.
	answered, alone bool
}

// ask asks the datacenters that are known, and those that gossip sees, by which lineage they know
// this one. A lineage that is not the own one is the answer to tell.
func (g *Guard) ask(ctx context.Context) answer {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	own, names := g.Datacenter, g.View.Known()
	list, _ := g.Gossip.ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{}) // May be away.
	for _, dc := range list.GetDatacenters() {
		if dc.GetState() == wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE {
			names = append(names, dc.GetName())
		}
	}
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == own })
	heard := answer{alone: len(names)+g.Expected == 0}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, name := range names {
		asking.Go(func() {
			lineage, err := g.at(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			heard.answered = heard.answered || err == nil
			if lineage != "" && (heard.lineage == "" || lineage != g.View.Lineage()) {
				heard.lineage, heard.by = lineage, name
			}
		})
	}
	asking.Wait()
	return heard
}

// at asks one datacenter by which lineage it knows this one's registry.
func (g *Guard) at(ctx context.Context, name string) (string, error) {
	conn, err := g.Connect(name)
	if err != nil {
		return "", err
	}
	resp, err := federationv1.NewFederationServiceClient(conn).GetFederation(ctx, &federationv1.GetFederationRequest{})
	if err != nil {
		return "", err
	}
	for _, m := range resp.GetFederation().GetMembers() {
		if m.GetName() == g.Datacenter {
			return m.GetLineageId(), nil
		}
	}
	return "", nil
}

// Keep compares, as long as this server leads, its lineage with the one by which the others know
// this datacenter. Until somebody has confirmed it, a server that founded the registry gives way to
// a lineage that was there before. Afterwards it does not: one datacenter that lies must not end
// another.
func (g *Guard) Keep(ctx context.Context) {
	if !g.WAN {
		return
	}
	pause := compareSoon
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.Clock.After(pause):
		}
		heard, own := g.ask(ctx), g.View.Lineage()
		if heard.answered {
			pause = compareLater
		}
		if own == "" || heard.lineage == "" {
			continue
		}
		if heard.lineage == own {
			if err := os.Remove(g.file(unconfirmedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
				g.Log.Warn("could not note that the registry's lineage is known", obs.KeyError, err)
			}
			continue
		}
		err := g.second(heard)
		g.Met()
		g.Log.Error("two registries go by this datacenter's name", obs.KeyError, err, "runbook", "docs/runbooks/registry-second.md")
		if _, statErr := os.Stat(g.file(unconfirmedFile)); statErr == nil {
			g.Fail(err)
			return
		}
	}
}
