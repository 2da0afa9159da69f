package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

const (
	fanoutKey      = "fanout"
	fanoutWatchers = 1000
)

// BenchmarkFanout writes a key that 1,000 streams watch over few connections, and measures from the
// acknowledgement of each write until the last watcher has it.
func BenchmarkFanout(b *testing.B) {
	for _, place := range []struct {
		name    string
		servers func(c *registrytest.Cluster) []*registrytest.Server
	}{
		{"leader", func(c *registrytest.Cluster) []*registrytest.Server { return []*registrytest.Server{c.Leader()} }},
		{"follower", func(c *registrytest.Cluster) []*registrytest.Server { return []*registrytest.Server{c.Follower()} }},
		{"all", func(c *registrytest.Cluster) []*registrytest.Server { return c.Servers }},
	} {
		b.Run(place.name, func(b *testing.B) {
			c := registrytest.StartCluster(b, 3)
			writer := c.Client(c.Leader())
			arrived := watchFanout(b, c, place.servers(c))
			_, err := writer.KV.Set(writer.Ctx(), &registryv1.SetRequest{Key: fanoutKey, Value: []byte("first")})
			require.NoError(b, err)
			for range fanoutWatchers {
				<-arrived
			}
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				_, err := writer.KV.Set(writer.Ctx(), &registryv1.SetRequest{Key: fanoutKey, Value: fmt.Appendf(nil, "%0256d", i)})
				require.NoError(b, err)
				acknowledged, last := time.Now(), time.Time{}
				for range fanoutWatchers {
					last = <-arrived
				}
				took = append(took, max(0, last.Sub(acknowledged)))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// watchFanout opens the watchers over four connections to each server. What it answers receives
// when one got a record.
func watchFanout(b *testing.B, c *registrytest.Cluster, servers []*registrytest.Server) <-chan time.Time {
	var clients []*registrytest.Client
	for _, s := range servers {
		for range 4 {
			clients = append(clients, c.Client(s))
		}
	}
	arrived := make(chan time.Time, fanoutWatchers)
	ctx, cancel := context.WithCancel(rpc.WithToken(context.Background(), registrytest.Token))
	b.Cleanup(cancel)
	for i := range fanoutWatchers {
		stream, err := clients[i%len(clients)].Watch.Watch(ctx, &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Prefix: "local/" + fanoutKey})
		require.NoError(b, err)
		_, err = stream.Recv()
		require.NoError(b, err)
		go func() {
			for {
				resp, err := stream.Recv()
				if err != nil {
					return
				}
				if len(resp.GetRecords()) > 0 {
					arrived <- time.Now()
				}
			}
		}()
	}
	return arrived
}

// BenchmarkIdleWatchers measures what a watcher costs that nothing happens to, client and server
// together.
func BenchmarkIdleWatchers(b *testing.B) {
	c := registrytest.Start(b, 1, within(registry.Limits{}))
	client := c.Client(c.Servers[0])
	ctx, cancel := context.WithCancel(rpc.WithToken(context.Background(), registrytest.Token))
	defer cancel()
	before := memory()
	watchers := 0
	for b.Loop() {
		stream, err := client.Watch.Watch(ctx, &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Prefix: fmt.Sprintf("local/idle/%d", watchers)})
		require.NoError(b, err)
		_, err = stream.Recv()
		require.NoError(b, err)
		watchers++
	}
	b.ReportMetric(float64(memory()-before)/float64(watchers), "B/watcher")
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
