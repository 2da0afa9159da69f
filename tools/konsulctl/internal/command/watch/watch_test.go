package watch_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestWatchKVWritesALineForEachChangeUntilInterrupted(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(r *registryv1.WatchRequest) (*registryv1.WatchResponse, error) {
		if r.GetIndex() == 0 {
			return &registryv1.WatchResponse{Index: 5, Synced: true, Records: []*registryv1.Record{{Key: "local/a", Value: []byte("1"), ModifyIndex: 4}}}, nil
		}
		return &registryv1.WatchResponse{Index: 8, Synced: true, Records: []*registryv1.Record{
			{Key: "global/a", Value: []byte("2"), ModifyIndex: 7}, {Key: "local/a", Deleted: true, ModifyIndex: 8},
		}}, nil
	})
	text, code := commandtest.Interrupted(t, gateway, 3, "watch", "kv", "--prefix", "a")
	require.Zero(t, code)
	require.Equal(t, "4\tset\tlocal/a\t1\n7\tset\tglobal/a\t2\n8\tdelete\tlocal/a\t\n", text)
	require.Equal(t, "a", konsultest.Last[*registryv1.WatchRequest](gateway).GetKeyPrefix())

	text, code = commandtest.Interrupted(t, gateway, 2, "watch", "kv", "a", "-o", "json")
	require.Zero(t, code)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	require.JSONEq(t, `{"event":"reset","index":5}`, lines[0])
	require.JSONEq(t, `{"event":"set","key":"a","scope":"local","value":"MQ==","index":4}`, lines[1])
}

func TestWatchServiceWritesWholeAnswers(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(r *registryv1.WatchInstancesRequest) (*registryv1.WatchInstancesResponse, error) {
		return &registryv1.WatchInstancesResponse{Changed: true, Index: r.GetIndex() + 3, Instances: []*registryv1.ServiceInstance{commandtest.Instance("us-west", "api-1", commandtest.Passing)}}, nil
	})
	text, code := commandtest.Interrupted(t, gateway, 2, "watch", "service", "api", "-o", "json")
	require.Zero(t, code)
	var line struct {
		Index     uint64
		Instances []struct{ ID, Endpoint, Status string }
	}
	require.NoError(t, json.Unmarshal([]byte(strings.Split(text, "\n")[1]), &line))
	require.EqualValues(t, 6, line.Index)
	require.Equal(t, "api-1", line.Instances[0].ID)
	require.Equal(t, "passing", line.Instances[0].Status)
	require.True(t, konsultest.Last[*registryv1.WatchInstancesRequest](gateway).GetPassingOnly())
}

func TestAWatchThatIsRefusedSaysWhy(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(*registryv1.WatchRequest) (*registryv1.WatchResponse, error) {
		return nil, fault.New(fault.PermissionDenied, "PERMISSION_DENIED", "token x lacks kv:read on a")
	})
	r := commandtest.Ctl(t, gateway, "", "watch", "kv", "a")
	require.Equal(t, 4, r.Code)
	require.Contains(t, r.Stderr, "lacks kv:read")
}
