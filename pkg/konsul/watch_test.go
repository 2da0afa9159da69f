package konsul_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

var errEnough = errors.New("enough")

func record(key, value string, index uint64) *registryv1.Record {
	return &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: key, Value: []byte(value), ModifyIndex: index, Deleted: value == ""}
}

// The gateway ends each stream after one message.
func TestAWatchGoesOnWhereItWas(t *testing.T) {
	gateway := konsultest.Start(t)
	var asked []uint64
	konsultest.On(gateway, func(r *registryv1.WatchRequest) (*registryv1.WatchResponse, error) {
		asked = append(asked, r.GetIndex())
		switch len(asked) {
		case 1:
			return &registryv1.WatchResponse{Records: []*registryv1.Record{record("local/a", "1", 5)}, Index: 9, Synced: true}, nil
		case 2:
			return nil, fault.New(fault.Unavailable, "DRAINING", "this server is stopping")
		case 3:
			return &registryv1.WatchResponse{Records: []*registryv1.Record{record("global/a", "2", 10), record("local/a", "", 11)}, Index: 12, Synced: true}, nil
		case 4:
			return &registryv1.WatchResponse{Index: 12, Resync: true}, nil
		case 5: // Cut short in the middle of the state.
			return &registryv1.WatchResponse{Records: []*registryv1.Record{record("global/a", "2", 10)}}, nil
		case 6:
			return &registryv1.WatchResponse{Index: 20, Synced: true}, nil
		default:
			return &registryv1.WatchResponse{Records: []*registryv1.Record{record("local/end", "x", 21)}, Index: 21, Synced: true}, nil
		}
	})
	var changes []*konsul.KVChange
	err := gateway.Client(t).Watch.KV(t.Context(), "a", nil, func(c *konsul.KVChange) error {
		changes = append(changes, c)
		if c.Index == 21 {
			return errEnough
		}
		return nil
	})
	require.ErrorIs(t, err, errEnough)
	require.Equal(t, []uint64{0, 9, 9, 12, 0, 0, 20}, asked)
	require.Len(t, changes, 5)
	require.True(t, changes[0].Reset)
	require.Equal(t, "a", changes[0].Entries[0].Key)
	require.Equal(t, konsul.ScopeLocal, changes[0].Entries[0].Scope)
	require.False(t, changes[1].Reset)
	require.Equal(t, konsul.ScopeGlobal, changes[1].Entries[0].Scope)
	require.Equal(t, []string{"local/a"}, changes[1].Deleted)
	require.True(t, changes[2].Reset, "changes were lost")
	require.True(t, changes[3].Reset, "the state was cut short")
	require.Empty(t, changes[3].Entries)
	require.False(t, changes[4].Reset)
	require.Equal(t, "a", konsultest.Last[*registryv1.WatchRequest](gateway).GetKey())
}

func TestAServiceIsWatchedByWholeAnswers(t *testing.T) {
	gateway := konsultest.Start(t)
	asked := 0
	konsultest.On(gateway, func(r *registryv1.WatchInstancesRequest) (*registryv1.WatchInstancesResponse, error) {
		asked++
		if asked == 2 {
			return &registryv1.WatchInstancesResponse{Index: 8}, nil // A heartbeat.
		}
		return &registryv1.WatchInstancesResponse{Changed: true, Index: r.GetIndex() + 4, Instances: []*registryv1.ServiceInstance{
			{Service: &registryv1.Service{Id: "web-1", Name: "web"}, Datacenter: "dc1"},
		}}, nil
	})
	var indexes []uint64
	err := gateway.Client(t).Watch.Service(t.Context(), "web", &konsul.WatchOptions{Tags: []string{"v1"}}, func(c *konsul.ServiceChange) error {
		indexes = append(indexes, c.Index)
		require.Equal(t, "web-1", c.Instances[0].ID)
		if len(indexes) == 2 {
			return errEnough
		}
		return nil
	})
	require.ErrorIs(t, err, errEnough)
	require.Equal(t, []uint64{4, 12}, indexes)
	last := konsultest.Last[*registryv1.WatchInstancesRequest](gateway)
	require.True(t, last.GetPassingOnly())
	require.Equal(t, []string{"v1"}, last.GetTags())
}

func TestAWatchThatIsRefusedOrCannotBeginEnds(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*registryv1.WatchRequest) (*registryv1.WatchResponse, error) {
		return nil, fault.New(fault.PermissionDenied, "PERMISSION_DENIED", "no")
	})
	nothing := func(*konsul.KVChange) error { return nil }
	client := gateway.Client(t)
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(client.Watch.KV(t.Context(), "a", nil, nothing)))
	gateway.Stop()
	require.Equal(t, fault.Unavailable, fault.CodeOf(client.Watch.KV(t.Context(), "a", nil, nothing)))
}
