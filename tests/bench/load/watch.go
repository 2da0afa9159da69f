package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	etcd "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/bench/target"
)

// WatchSpec is a measurement of how soon watchers hear of a write.
type WatchSpec struct {
	Access target.Access
	// Watchers of one key, spread over one connection to each server.
	Watchers int
	// Writes to that key, one after the other, each once all watchers heard of the one before.
	Writes int
	// Limit ends a measurement that hangs.
	Limit time.Duration
}

// WatchResult is how long after each acknowledgement the last watcher heard of the write; zero when
// all heard before.
type WatchResult struct{ P50, P99 time.Duration }

// watched is the number of the key that is watched.
const watched = 0

// Watch measures.
func Watch(ctx context.Context, spec WatchSpec) (WatchResult, error) {
	ctx, cancel := context.WithTimeout(ctx, spec.Limit)
	defer cancel()
	d, err := open(spec.Access, Put, 0)
	if err != nil {
		return WatchResult{}, err
	}
	defer d.close()
	group, ctx := errgroup.WithContext(ctx)
	c := newChorus(spec.Watchers)
	subscribe := watchKonsul
	if spec.Access.Kind == target.Etcd {
		subscribe = watchEtcd
	}
	for i, conn := range d.conns {
		share := spec.Watchers / len(d.conns)
		if i < spec.Watchers%len(d.conns) {
			share++
		}
		subscribe(ctx, group, conn, share, c)
	}
	var result WatchResult
	group.Go(func() error {
		defer cancel()
		var err error
		result, err = c.conduct(ctx, d.op, spec)
		return err
	})
	return result, group.Wait()
}

// chorus counts who has heard of what.
type chorus struct {
	size int
	// ready is closed when every watcher watches, all when every one has heard of the write at
	// hand.
	ready chan struct{}

	mu      sync.Mutex
	waiting int
	heard   int
	all     chan time.Time
}

func newChorus(size int) *chorus {
	return &chorus{size: size, waiting: size, ready: make(chan struct{}), all: make(chan time.Time, 1)}
}

// watches notes that one more watcher is there.
func (c *chorus) watches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting--; c.waiting == 0 {
		close(c.ready)
	}
}

// hears notes that watchers heard of the write.
func (c *chorus) hears(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard += n; c.heard == c.size {
		c.heard = 0
		c.all <- time.Now()
	}
}

// conduct writes again and again.
func (c *chorus) conduct(ctx context.Context, put operation, spec WatchSpec) (WatchResult, error) {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return WatchResult{}, errors.New("not every watcher came to watch in time")
	}
	var late []time.Duration
	for i := range spec.Writes {
		if err := put(ctx, i%len(spec.Access.Addresses), watched); err != nil {
			return WatchResult{}, fmt.Errorf("write %d: %w", i+1, err)
		}
		acknowledged := time.Now()
		select {
		case last := <-c.all:
			late = append(late, max(0, last.Sub(acknowledged)))
		case <-ctx.Done():
			return WatchResult{}, fmt.Errorf("not every watcher heard of write %d in time", i+1)
		}
	}
	return WatchResult{P50: Percentile(late, 50), P99: Percentile(late, 99)}, nil
}

// ended hides the end that the measurement itself brings about.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the streams end because the measurement is over
	}
	return err
}

// watchKonsul opens a stream for each watcher.
func watchKonsul(ctx context.Context, group *errgroup.Group, conn *grpc.ClientConn, watchers int, c *chorus) {
	request := &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Key: "local/" + Key(watched)}
	for range watchers {
		group.Go(func() error {
			stream, err := registryv1.NewWatchServiceClient(conn).Watch(rpc.WithToken(ctx, target.Token), request)
			if err != nil {
				return ended(ctx, err)
			}
			for synced := false; ; {
				m, err := stream.Recv()
				switch {
				case err != nil:
					return ended(ctx, err)
				case m.GetResync():
					return errors.New("a watcher was told to begin again")
				case !synced && m.GetSynced():
					synced = true
					c.watches()
				case synced && len(m.GetRecords()) > 0:
					c.hears(len(m.GetRecords()))
				}
			}
		})
	}
}

// watchEtcd puts all watchers on one stream, as etcd's client does.
func watchEtcd(ctx context.Context, group *errgroup.Group, conn *grpc.ClientConn, watchers int, c *chorus) {
	group.Go(func() error {
		stream, err := etcd.NewWatchClient(conn).Watch(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		group.Go(func() error {
			create := &etcd.WatchRequest{RequestUnion: &etcd.WatchRequest_CreateRequest{CreateRequest: &etcd.WatchCreateRequest{Key: []byte(Key(watched))}}}
			for range watchers {
				if err := stream.Send(create); err != nil {
					return ended(ctx, err)
				}
			}
			return nil
		})
		for {
			m, err := stream.Recv()
			switch {
			case err != nil:
				return ended(ctx, err)
			case m.GetCanceled():
				return fmt.Errorf("a watch was cancelled: %s", m.GetCancelReason())
			case m.GetCreated():
				c.watches()
			case len(m.GetEvents()) > 0:
				c.hears(len(m.GetEvents()))
			}
		}
	})
}
