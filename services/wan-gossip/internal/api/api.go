// Package api is wan-gossip's gRPC face. It converts and decides nothing. Safe for concurrent use.
package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/wan-gossip/internal/datacenters"
	"konsul.dev/services/wan-gossip/internal/members"
)

const (
	defaultHeartbeat = 5 * time.Second
	minHeartbeat     = 100 * time.Millisecond
)

// ReasonStopping is the reason of a stream that ends because this server stops.
const ReasonStopping = "STOPPING"

// Lister knows the datacenters.
type Lister interface {
	// Current returns the list and a channel that is closed when it changes.
	Current() ([]datacenters.Datacenter, <-chan struct{})
}

// Server implements DatacenterService.
type Server struct {
	wangossipv1.UnimplementedDatacenterServiceServer

	datacenter string
	lister     Lister
	stopping   <-chan struct{}
}

// New returns a server of a datacenter. Its streams end when stopping is closed.
func New(datacenter string, lister Lister, stopping <-chan struct{}) *Server {
	return &Server{datacenter: datacenter, lister: lister, stopping: stopping}
}

// ListDatacenters implements DatacenterService.
func (s *Server) ListDatacenters(context.Context, *wangossipv1.ListDatacentersRequest) (*wangossipv1.ListDatacentersResponse, error) {
	list, _ := s.lister.Current()
	return &wangossipv1.ListDatacentersResponse{Datacenters: convert(list), Datacenter: s.datacenter}, nil
}

// WatchDatacenters implements DatacenterService.
func (s *Server) WatchDatacenters(req *wangossipv1.WatchDatacentersRequest, stream wangossipv1.DatacenterService_WatchDatacentersServer) error {
	heartbeat, err := heartbeatOf(req)
	if err != nil {
		return err
	}
	timer := time.NewTimer(heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-s.stopping: // a watcher that came back while gossip says farewell
			return errStopping()
		default:
		}
		list, changed := s.lister.Current()
		if err := stream.Send(&wangossipv1.WatchDatacentersResponse{Datacenters: convert(list), Datacenter: s.datacenter}); err != nil {
			return err
		}
		timer.Reset(heartbeat)
		select {
		case <-changed:
		case <-timer.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.stopping:
			return errStopping()
		}
	}
}

func heartbeatOf(req *wangossipv1.WatchDatacentersRequest) (time.Duration, error) {
	if req.GetHeartbeat() == nil {
		return defaultHeartbeat, nil
	}
	if d := req.GetHeartbeat().AsDuration(); req.GetHeartbeat().IsValid() && d >= minHeartbeat {
		return d, nil
	}
	return 0, fault.Invalid("heartbeat", "is shorter than %s", minHeartbeat).WithRemedy("leave it out for the default of 5s")
}

func convert(list []datacenters.Datacenter) []*wangossipv1.Datacenter {
	out := make([]*wangossipv1.Datacenter, len(list))
	for i := range list {
		dc := &list[i]
		out[i] = &wangossipv1.Datacenter{
			Name: dc.Name, Id: dc.ID, State: state(dc.State), GatewayAddresses: dc.Gateways,
			Primary: dc.Primary, StateSince: timestamppb.New(dc.Since),
		}
		if dc.Measured {
			out[i].RoundTrip = durationpb.New(dc.RoundTrip)
		}
		out[i].Members, out[i].Rivals = membersOf(dc.Members), membersOf(dc.Rivals)
	}
	return out
}

func membersOf(all []members.Member) []*wangossipv1.Member {
	var out []*wangossipv1.Member
	for _, m := range all {
		out = append(out, &wangossipv1.Member{Name: m.Name, Address: m.Address, Status: string(m.Status), Tags: m.Tags})
	}
	return out
}

func state(s datacenters.State) wangossipv1.DatacenterState {
	switch s {
	case datacenters.Alive:
		return wangossipv1.DatacenterState_DATACENTER_STATE_ALIVE
	case datacenters.Failed:
		return wangossipv1.DatacenterState_DATACENTER_STATE_FAILED
	case datacenters.Left:
		return wangossipv1.DatacenterState_DATACENTER_STATE_LEFT
	default:
		return wangossipv1.DatacenterState_DATACENTER_STATE_UNSPECIFIED
	}
}

func errStopping() error {
	return fault.New(fault.Unavailable, ReasonStopping, "wan-gossip is stopping").WithRetryAfter(time.Second)
}
