package backup

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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protodelim"
	"pgregory.net/rapid"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// world is a datacenter that a Manager backs up.
type world struct {
	t      *testing.T
	clock  *clock.Manual
	rows   []*registryv1.Record
	index  uint64
	own    backupfile.Manifest
	target Target
	// watermark is up to where deletions are forgotten.
	watermark uint64
	// installed is the snapshot of the last restore, and at its index.
	installed []*registryv1.Record
	at        uint64
	registry  *prometheus.Registry
	*Manager
}

func newWorld(t *testing.T, s Schedule) *world {
	t.Helper()
	w := &world{
		t: t, clock: clock.NewManual(noon), index: 10, registry: prometheus.NewRegistry(),
		own:    backupfile.Manifest{FederationID: "fed", Datacenter: "dc1", DatacenterID: "dc1-id", Epoch: 1, Version: "test"},
		target: Target{FederationID: "fed", Datacenter: "dc1", Epoch: 1, Primary: true},
	}
	var err error
	w.Manager, err = New(Params{
		Export:    func(since uint64) (Export, error) { return &export{w: w, since: since}, nil },
		Watermark: func() uint64 { return w.watermark }, Retention: 100, Applied: func() uint64 { return w.index }, LastIndex: func() uint64 { return w.index },
		Describe: func() backupfile.Manifest { return w.own }, Target: func() Target { return w.target },
		Holds: func(*registryv1.Record) error { return nil }, Install: w.install, Restored: func(context.Context) error { return nil },
		Spool: t.TempDir() + "/spool", MaxRestoreBytes: 1 << 20, Schedule: s, Metrics: NewMetrics(w.registry), Clock: w.clock, Log: obs.Discard().Log,
	})
	require.NoError(t, err)
	return w
}

// set writes a key, or deletes it when value is empty.
func (w *world) set(key, value string) {
	w.index++
	row := &registryv1.Record{
		Table: kvTable, Key: "local/" + key, Value: []byte(value), Deleted: value == "", ModifyIndex: w.index,
		OriginDatacenter: w.own.Datacenter, OriginIndex: w.index, OriginEpoch: 1,
	}
	for i, old := range w.rows {
		if old.GetKey() == row.GetKey() {
			w.rows[i] = row
			return
		}
	}
	w.rows = append(w.rows, row)
	slices.SortFunc(w.rows, func(a, b *registryv1.Record) int { return strings.Compare(a.GetKey(), b.GetKey()) })
}

type export struct {
	w     *world
	since uint64
	next  int
}

func (e *export) Index() uint64             { return e.w.index }
func (e *export) Replaced() <-chan struct{} { return nil }
func (e *export) Close()                    {}

func (e *export) Next() (*registryv1.Record, error) {
	for e.next < len(e.w.rows) {
		row := e.w.rows[e.next]
		e.next++
		if row.GetModifyIndex() > e.since && (e.since > 0 || !row.GetDeleted()) {
			return row, nil
		}
	}
	return nil, nil
}

func (w *world) install(index uint64, size int64, snapshot io.Reader) error {
	content, err := io.ReadAll(snapshot)
	if err != nil {
		return err
	}
	if int64(len(content)) != size {
		return fmt.Errorf("%d bytes were promised, %d came", size, len(content))
	}
	in := bytes.NewReader(content)
	header := &registryv1.SnapshotHeader{}
	if err := protodelim.UnmarshalFrom(in, header); err != nil {
		return err
	}
	w.at, w.installed = header.GetIndex(), nil
	if index != w.at {
		return fmt.Errorf("index %d, header %d", index, w.at)
	}
	for in.Len() > 0 {
		row := &registryv1.Record{}
		if err := protodelim.UnmarshalFrom(in, row); err != nil {
			return err
		}
		w.installed = append(w.installed, row)
	}
	return nil
}

// make returns a backup, with a base an increment.
func (w *world) make(base *registryv1.BackupBase) ([]byte, error) {
	file, _, err := w.Create(w.t.Context(), base)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(file)
	return content, errors.Join(err, file.Close())
}

func (w *world) restore(o Order, files ...[]byte) (*registryv1.RestoreBackupResponse, error) {
	in, err := w.Receive()
	require.NoError(w.t, err)
	defer func() { require.NoError(w.t, in.Close()) }()
	for _, file := range files {
		if _, err := in.Write(file); err != nil {
			return nil, err
		}
		if err := in.End(); err != nil {
			return nil, err
		}
	}
	return in.Restore(w.t.Context(), o)
}

func (w *world) values() map[string]string {
	out := map[string]string{}
	for _, row := range w.installed {
		if row.GetTable() == kvTable {
			out[row.GetKey()] = string(row.GetValue())
		}
	}
	return out
}

const kvTable = registryv1.Table_TABLE_KV

func baseOf(t *testing.T, file []byte) *registryv1.BackupBase {
	t.Helper()
	m, _, err := backupfile.Verify(bytes.NewReader(file))
	require.NoError(t, err)
	return &registryv1.BackupBase{Id: m.ID, Index: m.Index, FederationId: m.FederationID, DatacenterId: m.DatacenterID, Generation: m.Generation}
}

func TestTheNextIndexIsAboveAllThatWasEverGivenOut(t *testing.T) {
	const retention = 1 << 16
	for name, c := range map[string]struct {
		last, backedUp uint64
		age            time.Duration
		above          uint64
	}{
		"an empty cluster, a fresh backup":       {0, 100, 0, 100 + indexesPerSecond},
		"this cluster is ahead":                  {1 << 40, 100, time.Hour, 1 << 40},
		"the backup's went on for an hour":       {50, 100, time.Hour, 100 + 3600*indexesPerSecond},
		"the backup's went on for ten years":     {50, 100, 10 * 365 * 24 * time.Hour, 100 + 10*365*24*3600*indexesPerSecond},
		"the backup's clock was ahead":           {50, 100, -time.Hour, 100},
		"the highest index a backup may be made": {50, highestIndex, 100 * 365 * 24 * time.Hour, highestIndex},
	} {
		t.Run(name, func(t *testing.T) {
			next := nextIndex(c.last, c.backedUp, retention, c.age)
			require.Greater(t, next, c.above+retention, "whoever read before the restore stands below the watermark after it")
			require.Greater(t, next, c.last+retention)
			require.Less(t, next, uint64(1)<<61, "there is room above")
		})
	}
}

func TestIncrementsAreMergedNewestFirstAndTombstonesTakeRowsAway(t *testing.T) {
	w := newWorld(t, Schedule{})
	for _, key := range []string{"a", "b", "c", "d"} {
		w.set(key, "1")
	}
	full, err := w.make(nil)
	require.NoError(t, err)
	w.set("a", "2")
	w.set("b", "")
	w.set("c", "")
	first, err := w.make(baseOf(t, full))
	require.NoError(t, err)
	w.set("a", "3")
	w.set("c", "again")
	w.set("e", "new")
	second, err := w.make(baseOf(t, first))
	require.NoError(t, err)

	answer, err := w.restore(Order{}, full, first, second)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"local/a": "3", "local/c": "again", "local/d": "1", "local/e": "new"}, w.values())
	require.Equal(t, w.at, answer.GetIndex())
	require.Greater(t, w.at, w.index)
	require.Len(t, answer.GetRestored(), 1)
	require.EqualValues(t, 4, answer.GetRestored()[0].GetRows())
	_, err = w.restore(Order{}, full, first)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"local/a": "2", "local/d": "1"}, w.values())
}

func TestAChainRestoresTheStateItWasMadeOf(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, Schedule{})
		live := map[string]string{}
		w.set("seed", "1")
		live["local/seed"] = "1"
		var files [][]byte
		var base *registryv1.BackupBase
		for range rapid.IntRange(1, 5).Draw(rt, "files") {
			for range rapid.IntRange(0, 12).Draw(rt, "changes") {
				key, value := rapid.StringMatching(`[a-e]{1,2}`).Draw(rt, "key"), rapid.SampledFrom([]string{"", "1", "2"}).Draw(rt, "value")
				w.set(key, value)
				if live["local/"+key] = value; value == "" {
					delete(live, "local/"+key)
				}
			}
			file, err := w.make(base)
			require.NoError(rt, err)
			files, base = append(files, file), baseOf(t, file)
		}
		_, err := w.restore(Order{}, files...)
		require.NoError(rt, err)
		require.Equal(rt, live, w.values())
		for i, row := range w.installed {
			require.Equal(rt, w.at, row.GetModifyIndex())
			require.True(rt, i == 0 || less(w.installed[i-1], row), "a snapshot is in order, each row once")
		}
	})
}

func TestABackupOutOfOrderIsDamaged(t *testing.T) {
	w := newWorld(t, Schedule{})
	w.set("a", "1")
	w.set("b", "1")
	slices.Reverse(w.rows)
	file, err := w.make(nil)
	require.NoError(t, err)
	_, err = w.restore(Order{}, file)
	require.Equal(t, backupfile.ReasonDamaged, fault.ReasonOf(err))
	require.Nil(t, w.installed)
}

func TestABaseMustBeOfThisHistoryAndRemembered(t *testing.T) {
	w := newWorld(t, Schedule{})
	w.set("a", "1")
	good := &registryv1.BackupBase{Id: "b", Index: 5, FederationId: "fed", DatacenterId: "dc1-id"}
	for name, c := range map[string]struct {
		change func(*registryv1.BackupBase)
		reason string
	}{
		"good":                  {func(*registryv1.BackupBase) {}, ""},
		"without an id":         {func(b *registryv1.BackupBase) { b.Id = "" }, fault.ReasonInvalidArgument},
		"without an index":      {func(b *registryv1.BackupBase) { b.Index = 0 }, fault.ReasonInvalidArgument},
		"another datacenter":    {func(b *registryv1.BackupBase) { b.DatacenterId = "dc2-id" }, ReasonForeignBase},
		"another federation":    {func(b *registryv1.BackupBase) { b.FederationId = "other" }, ReasonForeignBase},
		"another generation":    {func(b *registryv1.BackupBase) { b.Generation = 1 }, ReasonForeignBase},
		"ahead of this cluster": {func(b *registryv1.BackupBase) { b.Index = 99 }, ReasonForeignBase},
		"deletions forgotten":   {func(b *registryv1.BackupBase) { b.Index = 3 }, ReasonBaseTooOld},
	} {
		t.Run(name, func(t *testing.T) {
			w.watermark = 4
			base := &registryv1.BackupBase{Id: good.GetId(), Index: good.GetIndex(), FederationId: good.GetFederationId(), DatacenterId: good.GetDatacenterId()}
			c.change(base)
			_, err := w.make(base)
			require.Equal(t, c.reason, fault.ReasonOf(err), "%v", err)
		})
	}
}

func TestARestoreIsBoundedAndOneAtATime(t *testing.T) {
	w := newWorld(t, Schedule{})
	in, err := w.Receive()
	require.NoError(t, err)
	_, err = w.Receive()
	require.Equal(t, ReasonRestoreRunning, fault.ReasonOf(err))
	_, err = in.Write(make([]byte, 1<<20))
	require.NoError(t, err)
	_, err = in.Write([]byte{1})
	require.Equal(t, ReasonTooLarge, fault.ReasonOf(err))
	require.NoError(t, in.Close())
	require.NoDirExists(t, w.Spool)
	in, err = w.Receive()
	require.NoError(t, err)
	require.Equal(t, backupfile.ReasonDamaged, fault.ReasonOf(in.End()), "a file without a byte")
	require.NoError(t, in.Close())
}

func TestADryRunChangesNothing(t *testing.T) {
	w := newWorld(t, Schedule{})
	w.set("a", "1")
	file, err := w.make(nil)
	require.NoError(t, err)
	answer, err := w.restore(Order{DryRun: true}, file)
	require.NoError(t, err)
	require.True(t, answer.GetDryRun())
	require.Zero(t, answer.GetIndex())
	require.Nil(t, w.installed)
}
