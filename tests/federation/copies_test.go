package federation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/konsultest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
	"konsul.dev/services/replicator"
)

const (
	east, west = "us-east", "us-west"

	// A message of a full sync ends after 1,000 rows or 1 MiB.
	manyRows  = 2500
	largeRows = 5
	largeSize = 500 << 10
)

// world is a primary in the east, a secondary in the west, and the secondary's replicator, without
// gateways in between: a gateway passes TLS through.
type world struct {
	t         *testing.T
	ca        *identitytest.CA
	east      *registrytest.Cluster
	west      *registrytest.Cluster
	primary   *registrytest.Client
	secondary *registrytest.Client
	status    replicatorv1.StatusServiceClient
	listen    string
	copying   *replicator.Service
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ca: identitytest.NewCA(t, uuid.NewString()), listen: konsultest.FreeAddress(t)}
	w.east = registrytest.Start(t, 1, registrytest.Options{Datacenter: east, CA: w.ca, Adjust: func(c *registry.Config) {
		c.Registry.Retention.Bytes = 1 << 20 // the least
	}})
	w.west = registrytest.Start(t, 1, registrytest.Options{
		Datacenter: west, Primary: east, CA: w.ca, Gateway: w.east.Addresses(),
		Adjust: func(c *registry.Config) { c.Endpoints.Replicator = []string{w.listen} },
	})
	w.primary, w.secondary = w.east.Client(w.east.Servers[0]), w.west.Client(w.west.Servers[0])
	w.status = replicatorv1.NewStatusServiceClient(w.dial())
	w.replicate()
	t.Cleanup(w.stop)
	w.arrives("begin", "x")
	return w
}

func (w *world) dial() *grpc.ClientConn {
	w.t.Helper()
	conn, err := rpc.Dial(w.west.Addresses(), rpc.ClientParams{
		Identity: w.ca.Source(west, "gateway"), Want: identity.Want{Service: registry.Name}, Telemetry: obs.Discard(),
	})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// replicate starts the secondary's replicator.
func (w *world) replicate() { w.replicateFrom(w.east.Addresses()...) }

func (w *world) replicateFrom(gateway ...string) {
	w.t.Helper()
	cfg := replicator.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter = west, east
	cfg.Server.DataDir, cfg.Server.SecretFile = w.t.TempDir(), "unused"
	cfg.Endpoints.Registry, cfg.Endpoints.Gateway = w.west.Addresses(), gateway
	cfg.Replicator.Listen = w.listen
	cfg.Replicator.Heartbeat, cfg.Replicator.CursorInterval = 100*time.Millisecond, 100*time.Millisecond
	cfg.Replicator.RetryMin, cfg.Replicator.RetryMax = 5*time.Millisecond, 100*time.Millisecond
	var err error
	w.copying, err = replicator.New(cfg, konsulfx.Process{
		Telemetry: obs.Discard(), Clock: clock.System(), Identity: w.ca.Source(west, "replicator"),
		Fail: func(err error) { w.t.Errorf("a loop failed: %v", err) },
	})
	require.NoError(w.t, err)
	require.NoError(w.t, w.copying.Start(w.t.Context()))
}

func (w *world) stop() {
	if w.copying != nil {
		require.NoError(w.t, w.copying.Stop(context.Background()))
		w.copying = nil
	}
}

func (w *world) set(key string, value []byte) {
	w.t.Helper()
	_, err := w.primary.KV.Set(w.primary.Ctx(), &registryv1.SetRequest{Key: "global/" + key, Value: value})
	require.NoError(w.t, err)
}

// fill writes more than one message of a full sync holds, in rows and in bytes.
func (w *world) fill() {
	w.t.Helper()
	const each = 50
	for first := 0; first < manyRows; first += each {
		txn := &registryv1.TxnRequest{}
		for i := first; i < first+each; i++ {
			txn.Success = append(txn.Success, &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{
				Set: &registryv1.TxnSet{Key: fmt.Sprintf("global/many/%04d", i), Value: []byte("v")},
			}})
		}
		_, err := w.primary.KV.Txn(w.primary.Ctx(), txn)
		require.NoError(w.t, err)
	}
	for i := range largeRows {
		w.set(fmt.Sprintf("large/%d", i), bytes.Repeat([]byte{byte(i)}, largeSize))
	}
}

// arrives writes a global key in the primary and waits until it is readable in the secondary.
func (w *world) arrives(key, value string) {
	w.t.Helper()
	w.set(key, []byte(value))
	registrytest.Eventually(w.t, func() error {
		got, err := w.secondary.KV.Get(w.secondary.Ctx(), &registryv1.GetRequest{Key: key})
		if err == nil && string(got.GetEntry().GetValue()) != value {
			err = fmt.Errorf("%s is still %q", key, got.GetEntry().GetValue())
		}
		if err != nil {
			status, statusErr := w.status.GetStatus(w.secondary.Ctx(), &replicatorv1.GetStatusRequest{})
			err = errors.Join(fmt.Errorf("%w; status: %v", err, status), statusErr)
		}
		return err
	})
}

// copied requires that everything that fill wrote is in the secondary.
func (w *world) copied() {
	w.t.Helper()
	for prefix, want := range map[string]int{"many/": manyRows, "large/": largeRows} {
		count, token := 0, ""
		for {
			page, err := w.secondary.KV.List(w.secondary.Ctx(), &registryv1.ListRequest{Prefix: "global/" + prefix, KeysOnly: true, PageToken: token})
			require.NoError(w.t, err)
			count += len(page.GetEntries())
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		require.Equal(w.t, want, count, prefix)
	}
}

func (w *world) source() (*replicatorv1.GetStatusResponse, *replicatorv1.SourceStatus) {
	w.t.Helper()
	status, err := w.status.GetStatus(w.secondary.Ctx(), &replicatorv1.GetStatusRequest{})
	require.NoError(w.t, err)
	require.Equal(w.t, west, status.GetDatacenter())
	require.Len(w.t, status.GetSources(), 1)
	return status, status.GetSources()[0]
}

func (w *world) backup() []byte {
	w.t.Helper()
	stream, err := w.primary.Backup.CreateBackup(w.primary.Ctx(), &registryv1.CreateBackupRequest{})
	require.NoError(w.t, err)
	var file bytes.Buffer
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file.Bytes()
		}
		require.NoError(w.t, err)
		file.Write(m.GetData())
	}
}

func (w *world) restore(file []byte) {
	w.t.Helper()
	stream, err := w.primary.Backup.RestoreBackup(w.primary.Ctx())
	require.NoError(w.t, err)
	require.NoError(w.t, stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Start{Start: &registryv1.RestoreStart{}}}))
	for part := range slices.Chunk(file, 100_000) {
		require.NoError(w.t, stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Data{Data: part}}))
	}
	require.NoError(w.t, stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_End{End: &registryv1.BackupFileEnd{}}}))
	_, err = stream.CloseAndRecv()
	require.NoError(w.t, err)
}

func TestASecondaryFollowsAPrimaryThatWasRestored(t *testing.T) {
	w := newWorld(t)
	_, source := w.source()
	require.Nil(t, source.GetFullSyncAt(), "nothing that was deleted can be missed yet")
	w.fill()
	w.arrives("before", "1")
	w.copied()

	w.restore(w.backup())
	w.arrives("after", "2")
	w.copied()
	status, source := w.source()
	require.Empty(t, status.GetReplicatorError())
	require.True(t, source.GetConnected(), source.GetError())
	require.NotNil(t, source.GetFullSyncAt(), "copies may hold what the source deleted")
}

func TestASecondaryThatWasAwayForLongerThanTheWindowCatchesUp(t *testing.T) {
	w := newWorld(t)
	w.fill()
	w.arrives("before", "1")
	w.stop()
	for i := range 8 {
		w.set("churn", bytes.Repeat([]byte{byte(i)}, largeSize))
	}
	w.replicate()
	w.arrives("after", "2")
	w.copied()
	_, source := w.source()
	require.NotNil(t, source.GetFullSyncAt())
}

func TestAFirstSyncInManyPiecesThatIsInterruptedBeginsAnew(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.fill()
	for range 3 {
		w.replicate()
		w.stop()
	}
	w.replicate()
	w.arrives("after", "2")
	w.copied()
}

func TestTheAgeOfCopiesIsToldWhenTheReplicatorIsDead(t *testing.T) {
	w := newWorld(t)
	w.arrives("k", "v")
	status, source := w.source()
	require.Empty(t, status.GetReplicatorError())
	require.True(t, source.GetConnected())
	registrytest.Eventually(t, func() error {
		if lag := w.lag(); lag > 2 {
			return fmt.Errorf("%v s old although it is idle", lag)
		}
		return nil
	})

	w.stop()
	was := w.lag()
	registrytest.Eventually(t, func() error {
		if lag := w.lag(); lag < was+1.5 {
			return fmt.Errorf("the lag does not grow: %v, then %v", was, lag)
		}
		return nil
	})
	status, source = w.source()
	require.Contains(t, status.GetReplicatorError(), "the replicator does not answer")
	require.False(t, source.GetConnected())
	require.Equal(t, east, source.GetSourceDatacenter())
	require.NotZero(t, source.GetReplicatedIndex())
	require.GreaterOrEqual(t, source.GetLag().AsDuration(), 1500*time.Millisecond)

	got, err := w.secondary.KV.Get(w.secondary.Ctx(), &registryv1.GetRequest{Key: "k"})
	require.NoError(t, err)
	require.GreaterOrEqual(t, got.GetMeta().GetCopyAge().AsDuration(), 1500*time.Millisecond)
	tokens, err := w.secondary.ACL.ListTokens(w.secondary.Ctx(), &registryv1.ListTokensRequest{})
	require.NoError(t, err)
	require.NotNil(t, tokens.GetMeta().GetCopyAge())
	list, err := w.secondary.KV.List(w.secondary.Ctx(), &registryv1.ListRequest{Prefix: "global/"})
	require.NoError(t, err)
	require.NotNil(t, list.GetMeta().GetCopyAge())
	_, err = w.secondary.KV.Set(w.secondary.Ctx(), &registryv1.SetRequest{Key: "own", Value: []byte("x")})
	require.NoError(t, err)
	own, err := w.secondary.KV.Get(w.secondary.Ctx(), &registryv1.GetRequest{Key: "own"})
	require.NoError(t, err)
	require.Nil(t, own.GetMeta().GetCopyAge(), "a local record is no copy")
	far, err := w.primary.KV.Get(w.primary.Ctx(), &registryv1.GetRequest{Key: "k"})
	require.NoError(t, err)
	require.Nil(t, far.GetMeta().GetCopyAge(), "the primary has no copies")

	w.replicate()
	w.arrives("k", "v2")
	registrytest.Eventually(t, func() error {
		if status, _ := w.source(); status.GetReplicatorError() != "" {
			return errors.New(status.GetReplicatorError())
		}
		return nil
	})
}

// lag is the one series of the secondary's registry.
func (w *world) lag() float64 {
	w.t.Helper()
	families, err := w.west.Servers[0].Telemetry.Metrics.Gather()
	require.NoError(w.t, err)
	for _, f := range families {
		if f.GetName() != "konsul_federation_replication_lag_seconds" {
			continue
		}
		require.Len(w.t, f.GetMetric(), 1)
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName()+"="+l.GetValue())
		}
		require.Equal(w.t, "source_dc=us-east,target_dc=us-west", strings.Join(labels, ","))
		return f.GetMetric()[0].GetGauge().GetValue()
	}
	w.t.Fatal("the registry tells no lag")
	return 0
}
