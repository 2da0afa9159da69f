package watching

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/changes"
)

// WatchInstances streams the instances of one service.
func (s *Service) WatchInstances(req *registryv1.WatchInstancesRequest, stream grpc.ServerStreamingServer[registryv1.WatchInstancesResponse]) error {
	release, err := s.Open(rpc.CallerFrom(stream.Context()).Accessor)
	if err != nil {
		return err
	}
	defer release()
	target, err := s.Router.Resolve(req.GetDatacenter())
	if err != nil {
		return err
	}
	if target != s.Datacenter {
		return relay(s.Router, target, stream, func(ctx context.Context, far registryv1.WatchServiceClient) (grpc.ServerStreamingClient[registryv1.WatchInstancesResponse], error) {
			return far.WatchInstances(ctx, req)
		})
	}
	if err := s.Services.CheckServiceName(req.GetService()); err != nil {
		return err
	}
	heartbeat, err := changes.Heartbeat(req.GetHeartbeat(), usualHeartbeat)
	if err != nil {
		return err
	}
	selected, err := catalog.Select(req)
	if err != nil {
		return err
	}
	selected.PassingOnly = req.GetPassingOnly()
	w := instanceWatcher{selected: selected, Service: s, req: req, sent: req.GetIndex(), stream: stream, rights: acl.From(stream.Context())}
	return w.run(heartbeat)
}

// instanceWatcher sends the answer about a service whenever it is another one than the one sent
// before.
type instanceWatcher struct {
	*Service
	req      *registryv1.WatchInstancesRequest
	selected catalog.Selection
	stream   grpc.ServerStreamingServer[registryv1.WatchInstancesResponse]
	rights   *acl.Authorizer
	// sent is the index as of which the watcher knows the answer.
	sent uint64
}

func (w *instanceWatcher) run(heartbeat time.Duration) error {
	w.Source.Metrics.Streams.Inc()
	defer w.Source.Metrics.Streams.Dec()
	sub := w.Source.Hub.Listen(catalog.Topic(w.req.GetService()))
	defer sub.Close()
	timer := time.NewTimer(changes.Jittered(heartbeat))
	defer timer.Stop()
	reached := time.Now().Add(aheadPatience)
	for quiet := true; ; {
		if w.sent > w.Source.Hub.Index() && time.Now().After(reached) {
			// The index is none of this datacenter's: of its past before it was rebuilt. Nothing
			// would ever be newer.
			w.Source.Metrics.Resyncs.Inc()
			w.sent = 0
		}
		sent, err := w.pass(quiet)
		if err != nil {
			return err
		}
		if sent {
			timer.Reset(changes.Jittered(heartbeat))
		}
		quiet = false
		select {
		case <-sub.Wake():
		case <-timer.C:
			quiet = true
		case <-w.Source.Draining:
			return changes.Draining()
		case <-w.stream.Context().Done():
			return context.Cause(w.stream.Context())
		}
		if err := w.stillAllowed(); err != nil {
			return err
		}
	}
}

// pass sends the answer if it changed, otherwise a heartbeat if one is due.
func (w *instanceWatcher) pass(due bool) (bool, error) {
	changed := w.Catalog.Changed(w.req.GetService())
	resp := &registryv1.WatchInstancesResponse{Changed: w.sent == 0 || changed.Changed > w.sent}
	if !resp.GetChanged() && !due {
		return false, nil
	}
	answer := changed
	switch {
	case !resp.GetChanged():
	case w.selected.Plain():
		// The answer is encoded once for all who ask for it; its field has the same number here as
		// in QueryService's.
		var encoded []byte
		encoded, answer = w.Catalog.Encoded(w.req.GetService(), w.selected.PassingOnly)
		resp.ProtoReflect().SetUnknown(encoded)
	default:
		resp.Instances, answer = w.Catalog.Query(w.req.GetService(), w.selected)
	}
	w.sent = max(w.sent, answer.Index)
	resp.Index, resp.Time, resp.Meta = w.sent, w.StateTime(), w.Meta(false, answer.Index)
	return true, w.stream.Send(resp)
}

// stillAllowed returns a fault when the caller may not read the service any more.
func (w *instanceWatcher) stillAllowed() error {
	if w.rights == nil {
		return nil
	}
	now, err := w.Tokens.Refresh(w.rights)
	if err != nil || now == w.rights {
		return err
	}
	w.rights = now
	return now.Check(acl.Need{Resource: acl.Service, Name: w.req.GetService(), Access: acl.Read})
}
