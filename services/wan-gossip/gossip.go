package wangossip

import (
	"context"
	"time"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/wan-gossip/internal/datacenters"
	"konsul.dev/services/wan-gossip/internal/joiner"
	"konsul.dev/services/wan-gossip/internal/members"
	"konsul.dev/services/wan-gossip/internal/roundtrip"
	"konsul.dev/services/wan-gossip/internal/serfpool"
)

const (
	// How often the opening of the pool is tried again, and how often the log says that it is not
	// open yet.
	openRetryMin = 200 * time.Millisecond
	openRetryMax = 2 * time.Second
	remindEvery  = 5 * time.Minute
)

// pool is the open pool and who finds its other members.
type pool struct {
	*serfpool.Pool

	joiner *joiner.Joiner
}

// gossip opens the pool, or goes on trying while the service is up: what a datacenter does for its
// own clients does not depend on the others. What an operator has to mend is an error at once.
func (s *Service) gossip(ctx context.Context) error {
	if !s.cfg.Server.WAN.Enabled {
		return nil
	}
	err := s.open(ctx)
	if err == nil || fault.CodeOf(err) != fault.Unavailable {
		return err
	}
	s.warnNotOpen(err)
	s.opening.Add(1)
	s.host.Go("open gossip", func(context.Context) error {
		defer s.opening.Done()
		s.openLater(s.host.Up(), fault.ReasonOf(err))
		return nil
	})
	return nil
}

func (s *Service) openLater(quiet context.Context, said string) {
	reminded := s.deps.Clock.Now()
	for pause := backoff.New(openRetryMin, openRetryMax); pause.Wait(quiet) == nil; {
		err := s.open(quiet)
		if err == nil {
			s.deps.Telemetry.Log.Info("gossip has begun", obs.KeyAddress, s.GossipAddr())
			return
		}
		now, reason := s.deps.Clock.Now(), fault.ReasonOf(err)
		if quiet.Err() == nil && (reason != said || now.Sub(reminded) >= remindEvery) {
			reminded, said = now, reason
			s.warnNotOpen(err)
		}
	}
}

func (s *Service) warnNotOpen(err error) {
	s.deps.Telemetry.Log.Warn("gossip cannot begin yet; trying on, the own datacenter is served meanwhile",
		obs.KeyReason, fault.ReasonOf(err), obs.KeyError, err)
}

// open opens the pool and starts its loops; those that must end before the farewell end with Up.
func (s *Service) open(ctx context.Context) error {
	poolConfig, err := s.poolConfig(ctx)
	if err != nil {
		return err
	}
	if poolConfig.Keys, err = s.keys.obtain(ctx); err != nil {
		return err
	}
	opened, err := serfpool.Open(poolConfig)
	if err != nil {
		return err
	}
	open := &pool{Pool: opened, joiner: joiner.New(joiner.Params{
		Seeds: append(append([]string{}, s.cfg.Server.WAN.Members...), s.cfg.Server.WAN.Join...),
		Peers: s.peers.load(), Lookup: s.deps.Lookup,
		Join:      func(address string) error { return s.gate.counted(opened.Join(address)) },
		Connected: func() []string { return connected(opened) },
		RetryMin:  s.cfg.WANGossip.RetryMin, RetryMax: s.cfg.WANGossip.RetryMax,
		Clock: s.deps.Clock, Log: s.deps.Telemetry.Log,
	})}
	s.pool.Store(open)
	quiet := s.host.Up()
	prober := roundtrip.Prober{
		Own: s.cfg.Server.Datacenter, Interval: s.cfg.WANGossip.ProbeInterval, Pinger: open, Members: open.Members,
		Publish: func(measured map[string]time.Duration) { s.view.SetRoundTrips(measured, s.deps.Clock.Now()) },
	}
	s.host.Go("gossip", func(ctx context.Context) error { return open.Run(ctx, s.changed) })
	s.host.Go("join", func(context.Context) error { return open.joiner.Run(quiet) })
	s.host.Go("measure round trips", func(context.Context) error { return prober.Run(quiet) })
	s.host.Go("refresh gossip keys", func(context.Context) error {
		return s.keys.refresh(quiet, s.cfg.WANGossip.KeyRefresh, open.SetKeys)
	})
	return nil
}

// changed is told each time the members have changed.
func (s *Service) changed(all []members.Member) {
	before, _ := s.view.Current()
	s.view.SetMembers(all, s.deps.Clock.Now())
	s.warnOfRivals(before)
	s.peers.remember(all)
}

// warnOfRivals says, once for each, that a member claims a datacenter's name with another one's id.
func (s *Service) warnOfRivals(before []datacenters.Datacenter) {
	told := map[string]bool{}
	for _, dc := range before {
		for _, rival := range dc.Rivals {
			told[rival.Name] = true
		}
	}
	list, _ := s.view.Current()
	for _, dc := range list {
		for _, rival := range dc.Rivals {
			if !told[rival.Name] {
				s.deps.Telemetry.Log.Error("a gossip member claims another datacenter's name; it is not taken for it",
					obs.KeyTargetDC, dc.Name, obs.KeyPeer, rival.Name, obs.KeyAddress, rival.Address, "id", rival.DatacenterID, "known", dc.ID)
			}
		}
	}
}

func connected(open *serfpool.Pool) []string {
	addresses := []string{open.Addr()}
	for _, m := range open.Members() {
		if m.Up() {
			addresses = append(addresses, m.Address)
		}
	}
	return addresses
}
