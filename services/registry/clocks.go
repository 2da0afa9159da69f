package registry

import (
	"context"
	"time"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/skew"
)

// newClocks makes what compares the clocks of the datacenter's other servers and of the other
// datacenters.
func (s *Service) newClocks() *skew.Meter {
	own := s.cfg.Server.Datacenter
	return skew.New(skew.Params{
		Peers: func() []skew.Peer {
			var peers []skew.Peer
			for _, server := range s.node.Servers() {
				if server.ID != s.cfg.Registry.ID {
					peers = append(peers, skew.Peer{Datacenter: own, Server: server.ID})
				}
			}
			for _, name := range s.state.federation.Known() {
				if name != own {
					peers = append(peers, skew.Peer{Datacenter: name})
				}
			}
			return peers
		},
		Ask:   s.timeOf,
		Clock: s.deps.Clock, Log: s.deps.Telemetry.Log, Registerer: s.deps.Telemetry.Metrics,
	})
}

// timeOf returns the time of a server, or of whichever server of another datacenter answers; zero
// when it does not say.
func (s *Service) timeOf(ctx context.Context, peer skew.Peer) (time.Time, error) {
	if peer.Server != "" {
		conn, err := s.pool.Server(peer.Server)
		if err != nil {
			return time.Time{}, err
		}
		resp, err := registryv1.NewOperatorServiceClient(conn).ServerStatus(ctx, &registryv1.ServerStatusRequest{})
		if err != nil || resp.GetTime() == nil {
			return time.Time{}, err
		}
		return resp.GetTime().AsTime(), nil
	}
	conn, err := s.pool.Datacenter(peer.Datacenter)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := federationv1.NewFederationServiceClient(conn).GetFederation(ctx, &federationv1.GetFederationRequest{})
	if err != nil || resp.GetTime() == nil {
		return time.Time{}, err
	}
	return resp.GetTime().AsTime(), nil
}
