package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

func create(t *testing.T, c *registrytest.Client, base *registryv1.BackupBase) ([]byte, error) {
	t.Helper()
	stream, err := c.Backup.CreateBackup(c.Ctx(), &registryv1.CreateBackupRequest{Base: base})
	require.NoError(t, err)
	var file bytes.Buffer
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		file.Write(m.GetData())
	}
}

func mustCreate(t *testing.T, c *registrytest.Client, base *registryv1.BackupBase) []byte {
	t.Helper()
	file, err := create(t, c, base)
	require.NoError(t, err)
	return file
}

func on(t *testing.T, file []byte) *registryv1.BackupBase {
	t.Helper()
	m, _, err := backupfile.Verify(bytes.NewReader(file))
	require.NoError(t, err)
	return &registryv1.BackupBase{Id: m.ID, Index: m.Index, FederationId: m.FederationID, DatacenterId: m.DatacenterID, Generation: m.Generation}
}

func restore(t *testing.T, c *registrytest.Client, start *registryv1.RestoreStart, files ...[]byte) (*registryv1.RestoreBackupResponse, error) {
	t.Helper()
	stream, err := c.Backup.RestoreBackup(c.Ctx())
	require.NoError(t, err)
	_ = stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Start{Start: start}}) // Errors show in the answer.
	for _, file := range files {
		for len(file) > 0 {
			n := min(len(file), 100_000)
			_ = stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Data{Data: file[:n]}})
			file = file[n:]
		}
		_ = stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_End{End: &registryv1.BackupFileEnd{}}})
	}
	return stream.CloseAndRecv()
}

func mustRestore(t *testing.T, c *registrytest.Client, start *registryv1.RestoreStart, files ...[]byte) *registryv1.RestoreBackupResponse {
	t.Helper()
	var answer *registryv1.RestoreBackupResponse
	registrytest.Eventually(t, func() (err error) {
		// Where two cores starve a leader another one is elected: refused with NO_LEADER, nothing
		// has changed.
		if answer, err = restore(t, c, start, files...); fault.ReasonOf(err) != fault.ReasonNoLeader {
			require.NoError(t, err)
		}
		return err
	})
	return answer
}

// observer reads one server, stale, until it ends, and fails when an index goes back.
func observer(ctx context.Context, c *registrytest.Client, highest *atomic.Uint64) error {
	for ctx.Err() == nil {
		resp, err := c.KV.List(c.Ctx(), &registryv1.ListRequest{Limit: 1, ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		if err != nil {
			continue
		}
		if index := resp.GetMeta().GetIndex(); index < highest.Load() {
			return fmt.Errorf("the index went back from %d to %d", highest.Load(), index)
		}
		highest.Store(resp.GetMeta().GetIndex())
	}
	return nil
}

func TestARestoreUnderLoadNeverMovesAnIndexBackAndTellsEverybodyToBeginAnew(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Follower())
	set(t, cl, "kept", "old")
	register(t, cl, "n1", "web-1", "web")
	file := mustCreate(t, cl, nil)
	set(t, cl, "kept", "new")
	later := set(t, cl, "later", "1")

	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	highest := make([]atomic.Uint64, len(c.Servers))
	ended := make(chan error, len(c.Servers))
	for i, s := range c.Servers {
		client := c.Client(s)
		work.Go(func() { ended <- observer(ctx, client, &highest[i]) })
	}
	for i := range 4 {
		client := c.Client(c.Servers[i%3])
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				// Writes that the restore overtakes fail or are lost, as they must.
				_, _ = client.KV.Set(client.Ctx(), &registryv1.SetRequest{Key: fmt.Sprintf("load-%d", i), Value: fmt.Append(nil, n)})
			}
		})
	}
	// On every server somebody waits for a key that the restore takes away, and somebody watches.
	var waiting sync.WaitGroup
	woken, resynced := make(chan error, 3), make(chan error, 3)
	for _, s := range c.Servers {
		client := c.Client(s)
		stream, err := client.Watch.Watch(client.Ctx(), &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV, Prefix: "local/later"})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
		waiting.Go(func() {
			_, err := client.KV.Get(client.Ctx(), &registryv1.GetRequest{
				Key: "later", Index: later.GetMeta().GetIndex(), Wait: durationpb.New(time.Minute), ReadMode: registryv1.ReadMode_READ_MODE_STALE,
			})
			woken <- err
		})
		waiting.Go(func() {
			for {
				m, err := stream.Recv()
				if err != nil || m.GetResync() {
					resynced <- err
					return
				}
			}
		})
	}
	answer := mustRestore(t, cl, &registryv1.RestoreStart{}, file)
	waiting.Wait()
	for range c.Servers {
		require.Equal(t, fault.NotFound, fault.CodeOf(<-woken), "the key is gone")
		require.NoError(t, <-resynced)
	}
	stop()
	work.Wait()
	for range c.Servers {
		require.NoError(t, <-ended)
	}
	check := func() {
		t.Helper()
		for i, s := range c.Servers {
			client := c.Client(s)
			c.Eventually(func() error {
				got, err := client.KV.Get(client.Ctx(), &registryv1.GetRequest{Key: "kept", ReadMode: registryv1.ReadMode_READ_MODE_STALE})
				if err != nil {
					return err
				}
				if string(got.GetEntry().GetValue()) != "old" {
					return fmt.Errorf("%s has %q", s.ID(), got.GetEntry().GetValue())
				}
				require.GreaterOrEqual(t, got.GetMeta().GetIndex(), highest[i].Load())
				return nil
			})
			_, err := client.KV.Get(client.Ctx(), &registryv1.GetRequest{Key: "later"})
			require.Equal(t, fault.NotFound, fault.CodeOf(err))
			found, err := client.Catalog.QueryService(client.Ctx(), &registryv1.QueryServiceRequest{Service: "web"})
			require.NoError(t, err)
			require.Len(t, found.GetInstances(), 1)
		}
	}
	check()
	require.Greater(t, answer.GetIndex(), later.GetMeta().GetIndex())
	require.Greater(t, set(t, cl, "after", "1").GetMeta().GetIndex(), answer.GetIndex())

	for _, s := range c.Servers {
		s.Kill()
	}
	for _, s := range c.Servers {
		s.Start()
	}
	c.WaitReady()
	check()
	require.Equal(t, "1", get(t, cl, "after", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
}

func TestAServerThatSleptThroughARestoreGetsIt(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	cl := c.Client(c.Leader())
	set(t, cl, "a", "old")
	file := mustCreate(t, cl, nil)
	set(t, cl, "a", "new")
	asleep := c.Follower()
	asleep.Kill()
	answer := mustRestore(t, c.Client(c.Leader()), &registryv1.RestoreStart{}, file)
	asleep.Start()
	client := c.Client(asleep)
	c.Eventually(func() error {
		got, err := client.KV.Get(client.Ctx(), &registryv1.GetRequest{Key: "a", ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		if err == nil && (string(got.GetEntry().GetValue()) != "old" || got.GetMeta().GetIndex() < answer.GetIndex()) {
			err = fmt.Errorf("%s at %d", got.GetEntry().GetValue(), got.GetMeta().GetIndex())
		}
		return err
	})
}

func TestIncrementsAreRestoredInTheirOrder(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	set(t, cl, "a", "1")
	set(t, cl, "b", "1")
	full := mustCreate(t, cl, nil)
	set(t, cl, "a", "2")
	_, err := cl.KV.Delete(cl.Ctx(), &registryv1.DeleteRequest{Key: "b"})
	require.NoError(t, err)
	first := mustCreate(t, cl, on(t, full))
	set(t, cl, "c", "3")
	second := mustCreate(t, cl, on(t, first))
	require.Less(t, len(first), len(full))
	set(t, cl, "a", "9")

	for name, files := range map[string][][]byte{"a gap": {full, second}, "the order": {full, second, first}, "no base": {first}, "nothing": {}} {
		_, err := restore(t, cl, &registryv1.RestoreStart{}, files...)
		require.Equal(t, backupfile.ReasonBrokenChain, fault.ReasonOf(err), "%s: %v", name, err)
	}
	mustRestore(t, cl, &registryv1.RestoreStart{}, full, first, second)
	require.Equal(t, "2", get(t, cl, "a", registryv1.ReadMode_READ_MODE_DEFAULT))
	require.Equal(t, "3", get(t, cl, "c", registryv1.ReadMode_READ_MODE_DEFAULT))
	_, err = cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "b"})
	require.Equal(t, fault.NotFound, fault.CodeOf(err))

	_, err = create(t, cl, on(t, second))
	require.Equal(t, "BACKUP_BASE_TOO_OLD", fault.ReasonOf(err), "what the restore took away left no tombstones: %v", err)
	again := mustCreate(t, cl, nil)
	base := on(t, again)
	base.DatacenterId = "another"
	_, err = create(t, cl, base)
	require.Equal(t, "BACKUP_BASE_FOREIGN", fault.ReasonOf(err))
}

func TestDamagedFilesAndDryRunsChangeNothing(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	set(t, cl, "a", "old")
	file := mustCreate(t, cl, nil)
	before := set(t, cl, "a", "new").GetMeta().GetIndex()
	damaged := bytes.Clone(file)
	damaged[len(damaged)/2] ^= 1
	for name, bad := range map[string][]byte{"a flipped bit": damaged, "truncated": file[:len(file)-1], "no backup": []byte("hello"), "empty": {}} {
		_, err := restore(t, cl, &registryv1.RestoreStart{}, bad)
		require.Equal(t, fault.DataLoss, fault.CodeOf(err), "%s: %v", name, err)
	}
	dry := mustRestore(t, cl, &registryv1.RestoreStart{DryRun: true}, file)
	require.True(t, dry.GetDryRun())
	require.Zero(t, dry.GetIndex())
	require.NotEmpty(t, dry.GetRestored())
	got, err := cl.KV.Get(cl.Ctx(), &registryv1.GetRequest{Key: "a"})
	require.NoError(t, err)
	require.Equal(t, "new", string(got.GetEntry().GetValue()))
	require.Equal(t, before, got.GetEntry().GetModifyIndex())
	left, err := os.ReadDir(c.Servers[0].Dir("restore"))
	require.True(t, errors.Is(err, os.ErrNotExist) || len(left) == 0)
}

func TestABackupUnderWritesIsOfOneIndex(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	filler := make([]byte, 64<<10)
	for i := range 40 {
		_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: fmt.Sprintf("m%02d", i), Value: filler})
		require.NoError(t, err)
	}
	// Two keys, far apart in the file, that are only ever written together.
	both := func(n int) error {
		op := func(key string) *registryv1.TxnOperation {
			return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{Key: key, Value: fmt.Append(nil, n)}}}
		}
		_, err := cl.KV.Txn(cl.Ctx(), &registryv1.TxnRequest{Success: []*registryv1.TxnOperation{op("a"), op("z")}})
		return err
	}
	require.NoError(t, both(0))
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	failed := make(chan error, 1)
	writer.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			if err := both(n); err != nil {
				failed <- err
				return
			}
		}
	})
	for range 10 {
		r, err := backupfile.NewReader(bytes.NewReader(mustCreate(t, cl, nil)))
		require.NoError(t, err)
		values := map[string]string{}
		for {
			row, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			require.LessOrEqual(t, row.GetModifyIndex(), r.Manifest().Index)
			values[row.GetKey()] = string(row.GetValue())
		}
		require.NotEmpty(t, values["local/a"])
		require.Equal(t, values["local/a"], values["local/z"])
	}
	stop()
	writer.Wait()
	require.Empty(t, failed)
}

func TestARowThatNoServerCouldHoldIsRefusedBeforeAnythingChanges(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	set(t, cl, "a", "1")
	m, _, err := backupfile.Verify(bytes.NewReader(mustCreate(t, cl, nil)))
	require.NoError(t, err)
	token, err := proto.Marshal(&registryv1.ACLToken{AccessorId: "x", SecretHash: []byte("short")})
	require.NoError(t, err)
	junk := []byte{0xff, 0xff}
	noise := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // It cannot fail.
	for name, row := range map[string]*registryv1.Record{
		"no table":               {Key: "x"},
		"the store's own table":  {Table: 0xff, Key: "x"},
		"a table to come":        {Table: 77, Key: "x"},
		"a node that is none":    {Table: registryv1.Table_TABLE_NODE, Key: "n", Value: junk},
		"a service":              {Table: registryv1.Table_TABLE_SERVICE, Key: "s", Value: junk},
		"a check":                {Table: registryv1.Table_TABLE_CHECK, Key: "s/c", Value: junk},
		"a token":                {Table: registryv1.Table_TABLE_ACL_TOKEN, Key: "x", Value: junk},
		"a token's hash":         {Table: registryv1.Table_TABLE_ACL_TOKEN, Key: "x", Value: token},
		"a policy":               {Table: registryv1.Table_TABLE_ACL_POLICY, Key: "x", Value: junk},
		"a role":                 {Table: registryv1.Table_TABLE_ACL_ROLE, Key: "x", Value: junk},
		"a setting":              {Table: registryv1.Table_TABLE_SETTING, Key: "autopilot", Value: junk},
		"a lease":                {Table: registryv1.Table_TABLE_LEASE, Key: "lease/x", Value: junk},
		"a lock":                 {Table: registryv1.Table_TABLE_LOCK, Key: "x", Value: junk},
		"a member":               {Table: registryv1.Table_TABLE_DATACENTER, Key: "x", Value: junk},
		"a failover policy":      {Table: registryv1.Table_TABLE_FAILOVER_POLICY, Key: "x", Value: junk},
		"a value that is huge":   {Table: registryv1.Table_TABLE_KV, Key: "local/x", Value: noise},
		"a key that is too long": {Table: registryv1.Table_TABLE_KV, Key: "local/" + strings.Repeat("x", 70_000)},
	} {
		var file bytes.Buffer
		w, err := backupfile.NewWriter(&file, m)
		require.NoError(t, err)
		require.NoError(t, w.Write(row))
		_, err = w.Close()
		require.NoError(t, err)
		for _, dry := range []bool{true, false} {
			_, err = restore(t, cl, &registryv1.RestoreStart{DryRun: dry}, file.Bytes())
			require.Contains(t, []string{backupfile.ReasonDamaged, backupfile.ReasonNewerFormat}, fault.ReasonOf(err), "%s: %v", name, err)
		}
	}
	require.Equal(t, "1", get(t, cl, "a", registryv1.ReadMode_READ_MODE_LINEARIZABLE))
	require.Empty(t, c.Servers[0].Failed)
}

func TestABackupIsRestoredIntoAnotherDatacenter(t *testing.T) {
	t.Parallel()
	east := registrytest.Start(t, 1, registrytest.Options{Datacenter: "us-east"})
	old := east.Client(east.Servers[0])
	set(t, old, "config/a", "1")
	set(t, old, "global/g", "2")
	register(t, old, "n1", "web-1", "web")
	made, err := old.ACL.CreateToken(old.Ctx(), &registryv1.CreateTokenRequest{Management: true})
	require.NoError(t, err)
	file := mustCreate(t, old, nil)
	at := on(t, file).GetIndex()

	fresh := registrytest.Start(t, 3, registrytest.Options{Datacenter: "us-east-new", CA: east.CA})
	cl := fresh.Client(fresh.Follower())
	_, err = restore(t, cl, &registryv1.RestoreStart{}, file)
	require.Equal(t, "BACKUP_OF_ANOTHER_DATACENTER", fault.ReasonOf(err))
	answer := mustRestore(t, cl, &registryv1.RestoreStart{Datacenter: "us-east-new"}, file)
	require.Greater(t, answer.GetIndex(), at)
	require.Equal(t, "us-east", answer.GetSourceDatacenter())
	for _, s := range fresh.Servers {
		client := fresh.Client(s)
		// A majority has the restored state when the answer comes. The last server waits for it
		// rather than refuse a token.
		_, err := client.KV.Get(client.As(made.GetSecret()), &registryv1.GetRequest{Key: "config/a"})
		require.NoError(t, err)
		got, err := client.KV.Get(client.Ctx(), &registryv1.GetRequest{Key: "global/g"})
		require.NoError(t, err)
		require.Equal(t, "us-east-new", got.GetEntry().GetOriginDatacenter())
		require.Equal(t, answer.GetIndex(), got.GetEntry().GetModifyIndex())
		found, err := client.Catalog.QueryService(client.Ctx(), &registryv1.QueryServiceRequest{Service: "web"})
		require.NoError(t, err)
		require.Equal(t, "us-east-new", found.GetInstances()[0].GetDatacenter())
	}
	f, err := cl.Federation.GetFederation(cl.Ctx(), &federationv1.GetFederationRequest{})
	require.NoError(t, err)
	require.Equal(t, "us-east-new", f.GetFederation().GetPrimaryDatacenter())
	require.Len(t, f.GetFederation().GetMembers(), 1)
	require.Equal(t, "us-east-new", f.GetFederation().GetMembers()[0].GetName())
	status, err := cl.Operator.ClusterStatus(cl.Ctx(), &registryv1.ClusterStatusRequest{})
	require.NoError(t, err)
	require.Len(t, status.GetServers(), 3)
	require.True(t, status.GetHealthy())
}

func TestALeaseOutOfABackupEndsUnlessItIsKeptAlive(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	id := grant(t, cl, time.Second)
	_, err := cl.KV.Set(cl.Ctx(), &registryv1.SetRequest{Key: "a", Value: []byte("v"), Lease: id})
	require.NoError(t, err)
	_, err = cl.Locks.Acquire(cl.Ctx(), &registryv1.AcquireLockRequest{Name: "jobs/x", Lease: id, Delay: durationpb.New(0)})
	require.NoError(t, err)
	file := mustCreate(t, cl, nil)
	c.Eventually(func() error { return gone(cl, "a") })
	mustRestore(t, cl, &registryv1.RestoreStart{}, file)
	held, err := cl.Locks.Get(cl.Ctx(), &registryv1.GetLockRequest{Name: "jobs/x"})
	require.NoError(t, err)
	require.Equal(t, id, held.GetLock().GetLease())
	c.Eventually(func() error { return gone(cl, "a") })
	c.Eventually(func() error {
		if _, err := cl.Locks.Get(cl.Ctx(), &registryv1.GetLockRequest{Name: "jobs/x"}); fault.CodeOf(err) != fault.NotFound {
			return fmt.Errorf("the lock is there still (%w)", err)
		}
		return nil
	})
}

func TestBackupsAndRestoresAreInTheAuditLog(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 3)
	follower := c.Follower()
	cl := c.Client(follower)
	file := mustCreate(t, cl, nil)
	mustRestore(t, cl, &registryv1.RestoreStart{}, file)
	_, err := restore(t, cl, &registryv1.RestoreStart{}, file[:100])
	require.Equal(t, fault.DataLoss, fault.CodeOf(err))
	var text strings.Builder
	for _, s := range c.Servers {
		s.Stop()
		log, err := os.ReadFile(filepath.Join(s.DataDir(), "registry", "audit.log"))
		require.NoError(t, err)
		text.Write(log)
	}
	for method, outcomes := range map[string][]string{"CreateBackup": {"OK"}, "RestoreBackup": {"OK", "DataLoss BACKUP_DAMAGED"}} {
		for _, outcome := range outcomes {
			found := 0
			for line := range strings.Lines(text.String()) {
				if strings.Contains(line, ".BackupService/"+method) && strings.Contains(line, `"outcome":"`+outcome+`"`) && strings.Contains(line, `"decision":"allowed"`) {
					found++
				}
			}
			require.Equal(t, 1, found, "%s %s in\n%s", method, outcome, text.String())
		}
	}
}

func TestASecondaryKeepsItsGlobalRows(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, 1, registrytest.Options{Datacenter: "dc2", Primary: "dc1"})
	gateway, replicator := c.ClientAs(c.Servers[0], "dc2", "gateway"), c.ClientAs(c.Servers[0], "dc2", "replicator")
	copied := func(value string, expected, index uint64) {
		t.Helper()
		_, err := replicator.Replication.ApplyReplicated(replicator.Bare(), &federationv1.ApplyReplicatedRequest{
			SourceDc: "dc1", ExpectedIndex: expected, Cursor: &federationv1.ReplicationCursor{SourceDatacenter: "dc1", Index: index, Epoch: 1},
			Entries: []*federationv1.ReplicatedEntry{
				{Type: federationv1.ReplicatedEntry_KV, Key: "global/g", Value: []byte(value), ModifyIndex: int64(index), OriginDc: "dc1", OriginEpoch: 1},
				managementToken(t, index),
			},
		})
		require.NoError(t, err)
	}
	copied("old", 0, 10)
	set(t, gateway, "mine", "old")
	file := mustCreate(t, gateway, nil)
	copied("new", 10, 20)
	set(t, gateway, "mine", "new")
	mustRestore(t, gateway, &registryv1.RestoreStart{}, file)
	require.Equal(t, "old", get(t, gateway, "mine", registryv1.ReadMode_READ_MODE_DEFAULT))
	require.Equal(t, "new", get(t, gateway, "global/g", registryv1.ReadMode_READ_MODE_DEFAULT))
	cursor, err := replicator.Replication.GetCursor(replicator.Bare(), &federationv1.GetCursorRequest{SourceDc: "dc1"})
	require.NoError(t, err)
	require.EqualValues(t, 20, cursor.GetCursor().GetIndex(), "replication goes on where it was")
	copied("newer", 20, 30)
}

func TestTheScheduleMakesBackupsThatCanBeRestored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := registrytest.Start(t, 1, registrytest.Options{Adjust: func(cfg *registry.Config) {
		cfg.Registry.Backup.Every, cfg.Registry.Backup.Directory, cfg.Registry.Backup.FullEvery = time.Second, dir, 2
	}})
	cl := c.Client(c.Servers[0])
	set(t, cl, "a", "1")
	var kept []*registryv1.KeptBackup
	c.Eventually(func() error {
		set(t, cl, "b", time.Now().String())
		answer, err := cl.Backup.ListBackups(cl.Ctx(), &registryv1.ListBackupsRequest{})
		if err != nil {
			return err
		}
		if kept = answer.GetBackups(); len(kept) < 4 || kept[2].GetBaseId() != "" {
			return fmt.Errorf("%d backups", len(kept))
		}
		return nil
	})
	require.NotEmpty(t, kept[1].GetBaseId())
	var files [][]byte
	for _, b := range kept[2:4] {
		require.Equal(t, dir, filepath.Dir(b.GetPath()))
		file, err := os.ReadFile(b.GetPath())
		require.NoError(t, err)
		files = append(files, file)
	}
	mustRestore(t, cl, &registryv1.RestoreStart{}, files...)
	require.Equal(t, "1", get(t, cl, "a", registryv1.ReadMode_READ_MODE_DEFAULT))
}

func TestOnlyWhoMayBackUpDoes(t *testing.T) {
	t.Parallel()
	c := registrytest.StartCluster(t, 1)
	cl := c.Client(c.Servers[0])
	made := limited(t, cl, "backups", "backup ^ read")
	stream, err := cl.Backup.CreateBackup(cl.As(made.GetSecret()), &registryv1.CreateBackupRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	up, err := cl.Backup.RestoreBackup(cl.As(made.GetSecret()))
	require.NoError(t, err)
	_ = up.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Start{Start: &registryv1.RestoreStart{}}})
	_, err = up.CloseAndRecv()
	requireLacks(t, err, "backup:write")
}

// managementToken is the test's own token as the primary sends it.
func managementToken(t *testing.T, index uint64) *federationv1.ReplicatedEntry {
	t.Helper()
	hash := sha256.Sum256([]byte(registrytest.Token))
	value, err := proto.Marshal(&registryv1.ACLToken{AccessorId: "initial", SecretHash: hash[:], Management: true})
	require.NoError(t, err)
	return &federationv1.ReplicatedEntry{
		Type: federationv1.ReplicatedEntry_ACL_TOKEN, Key: "initial", Value: value, ModifyIndex: int64(index), OriginDc: "dc1", OriginEpoch: 1,
	}
}
