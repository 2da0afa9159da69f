package hostile_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/config"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/framework"
	"konsul.dev/tests/hostile/attack"
)

// lowly returns the secret of a token that may write below one prefix, and nothing else.
func lowly(t *testing.T, d *attack.Datacenter) string {
	t.Helper()
	access, file := d.Access(), filepath.Join(t.TempDir(), "token")
	const policy = "description: one application\nrules:\n  - {resource: kv, prefix: app2/, access: [read, write, delete]}\n"
	created := access.CTLInput(t, policy, "acl", "policy", "create", "app2", "--file", "-")
	require.Zero(t, created.Code, created.Stderr)
	access.MustCTL(t, "acl", "token", "create", "--policy", "app2", "--out", file)
	secret, err := os.ReadFile(file)
	require.NoError(t, err)
	return strings.TrimSpace(string(secret))
}

// connections dials the people's edge a number of times.
func connections(t *testing.T, d *attack.Datacenter, n int) []*grpc.ClientConn {
	t.Helper()
	secure := credentials.NewTLS(&tls.Config{RootCAs: d.Roots(), MinVersion: tls.VersionTLS13})
	out := make([]*grpc.ClientConn, n)
	for i := range out {
		var err error
		out[i], err = grpc.NewClient(d.Addr(config.PortHTTP), grpc.WithTransportCredentials(secure))
		require.NoError(t, err)
		t.Cleanup(func() { _ = out[i].Close() })
	}
	return out
}

func bearer(ctx context.Context, secret string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret)
}

// put returns good traffic: a write by somebody else.
func put(d *attack.Datacenter, conn *grpc.ClientConn) func(context.Context) error {
	client := registryv1.NewKVServiceClient(conn)
	return func(ctx context.Context) error {
		_, err := client.Set(bearer(ctx, d.Access().Token), &registryv1.SetRequest{Key: "good", Value: []byte("x")})
		return err
	}
}

func TestOneTokenWritesWhatItMay(t *testing.T) {
	const most = 500 // fewer than the gateway lets through on so many connections
	d := attack.Start(t, attack.Options{Settings: []string{
		fmt.Sprintf("registry.limits.watches_per_token=%d", most), fmt.Sprintf("registry.limits.blocked_reads_per_token=%d", most),
	}})
	secret := lowly(t, d)
	conns, good := connections(t, d, 20), put(d, connections(t, d, 1)[0])
	registry := d.Pid(attack.Registry)
	keys, leases := registryv1.NewKVServiceClient(conns[0]), registryv1.NewLeaseServiceClient(conns[0])
	ctx, cancel := context.WithCancel(bearer(t.Context(), secret))
	t.Cleanup(cancel)

	t.Run("a lease of very many keys ends", func(t *testing.T) {
		const attached, each = 100_000, 1000
		granted, err := leases.Grant(ctx, &registryv1.GrantLeaseRequest{Name: "app2/l", Ttl: durationpb.New(time.Hour)})
		require.NoError(t, err)
		id := granted.GetLease().GetId()
		for first := 0; first < attached; first += each {
			batch := &registryv1.BatchRequest{}
			for i := range each {
				batch.Operations = append(batch.Operations, &registryv1.BatchOperation{Operation: &registryv1.BatchOperation_Set{
					Set: &registryv1.SetRequest{Key: fmt.Sprintf("app2/%d", first+i), Lease: id},
				}})
			}
			_, err := keys.Batch(ctx, batch)
			require.NoError(t, err)
		}
		stop := attack.GoodTraffic(t, 10*time.Millisecond, good)
		_, err = leases.Revoke(ctx, &registryv1.RevokeLeaseRequest{Id: id, RequestId: uuid.NewString()})
		require.NoError(t, err)
		served := stop()
		require.Zero(t, served.Failed, served.Last)
		require.Less(t, served.Slowest, time.Second, "fifty commits, and others' writes between them")
		left, err := keys.List(ctx, &registryv1.ListRequest{Prefix: "app2/", KeysOnly: true})
		require.NoError(t, err)
		require.Empty(t, left.GetEntries(), "a revocation returns when all is gone")
	})

	t.Run("reads that wait", func(t *testing.T) {
		set, err := keys.Set(ctx, &registryv1.SetRequest{Key: "app2/awaited"})
		require.NoError(t, err)
		finish := attack.GoodTraffic(t, 50*time.Millisecond, good)
		stop := attack.Watch(t, registry)
		const reads = 3000
		waiting, cancel := context.WithTimeout(ctx, 8*time.Second)
		defer cancel()
		var refused atomic.Int64
		var all sync.WaitGroup
		for i := range reads {
			all.Go(func() {
				_, err := registryv1.NewKVServiceClient(conns[i%len(conns)]).Get(waiting, &registryv1.GetRequest{
					Key: "app2/awaited", Index: set.GetMeta().GetIndex(), Wait: durationpb.New(time.Minute),
				})
				if status.Code(err) == codes.ResourceExhausted {
					refused.Add(1)
				}
			})
		}
		all.Wait()
		seen, served := stop(), finish()
		require.GreaterOrEqual(t, refused.Load(), int64(reads/2), "few may wait")
		require.LessOrEqual(t, seen.Grown(), int64(160*attack.MiB), "of five hundred; ten thousand that waited took 620 MB")
		require.Zero(t, served.Failed, served.Last)
	})

	t.Run("watches", func(t *testing.T) {
		finish := attack.GoodTraffic(t, 50*time.Millisecond, good)
		stop := attack.Watch(t, registry)
		opened := 0
		var refusal error
		watching, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for refusal == nil {
			stream, err := registryv1.NewWatchServiceClient(conns[opened%len(conns)]).Watch(watching, &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, KeyPrefix: "app2/watched/"})
			if err == nil {
				_, err = stream.Recv()
			}
			if refusal = err; err == nil {
				opened++
			}
		}
		seen, served := stop(), finish()
		require.Equal(t, codes.ResourceExhausted, status.Code(refusal), "%d opened: %v", opened, refusal)
		require.Equal(t, most, opened)
		require.LessOrEqual(t, seen.Grown(), int64(100*attack.MiB))
		require.Zero(t, served.Failed, served.Last)
	})

	t.Run("leases by the thousand", func(t *testing.T) {
		stop := attack.GoodTraffic(t, 50*time.Millisecond, good)
		flooding, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var granted, refused atomic.Int64
		var all sync.WaitGroup
		start := time.Now()
		for i := range 64 {
			all.Go(func() {
				client := registryv1.NewLeaseServiceClient(conns[i%len(conns)])
				for flooding.Err() == nil {
					_, err := client.Grant(flooding, &registryv1.GrantLeaseRequest{Name: "app2/l", Ttl: durationpb.New(10 * time.Second)})
					switch status.Code(err) {
					case codes.OK:
						granted.Add(1)
					case codes.ResourceExhausted:
						refused.Add(1)
					}
				}
			})
		}
		all.Wait()
		served := stop()
		t.Logf("%d leases granted, %d refused", granted.Load(), refused.Load())
		require.LessOrEqual(t, float64(granted.Load()), 1000+500*time.Since(start).Seconds()+64, "five hundred a second, and a thousand at once")
		require.Zero(t, served.Failed, served.Last)
	})
}

// TestWrongTokensPushNoChangeOut guesses tokens until there are more refusals than the audit log
// holds.
func TestWrongTokensPushNoChangeOut(t *testing.T) {
	d := attack.Start(t, attack.Options{Settings: []string{"registry.audit.max_bytes=65536", "registry.audit.keep=1"}})
	d.Access().MustCTL(t, "acl", "policy", "create", "before-the-flood", "--rule", "kv read x/")
	conns := connections(t, d, 8)
	var all sync.WaitGroup
	for i, conn := range conns {
		all.Go(func() {
			client := registryv1.NewKVServiceClient(conn)
			for n := range 1000 {
				ctx, cancel := context.WithTimeout(bearer(context.Background(), fmt.Sprintf("%064d", i*1000+n)), 10*time.Second)
				_, err := client.Get(ctx, &registryv1.GetRequest{Key: "x"})
				cancel()
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("a wrong token: %v", err)
				}
			}
		})
	}
	all.Wait()
	reply := d.Access().REST(t, http.MethodGet, "/api/v1/acl/self", nil, nil)
	require.Equal(t, http.StatusOK, reply.Status)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(d.Dir, "data", attack.Registry, name))
		require.NoError(t, err)
		return string(text)
	}
	require.Contains(t, read("audit.log"), "before-the-flood")
	framework.Eventually(t, 90*time.Second, "the flood is counted in one line", func() error {
		if !strings.Contains(read("audit-denied.log"), `"omitted":`) {
			return io.ErrNoProgress
		}
		return nil
	})
	require.Less(t, len(read("audit-denied.log")), 64<<10)
}
