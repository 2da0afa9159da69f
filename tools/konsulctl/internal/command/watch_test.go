package command_test

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/command"
)

func TestTheStateAsOfAnIndexIsAskedFor(t *testing.T) {
	for line, want := range map[string]proto.Message{
		"kv get --at-index 7 config/app/version": &registryv1.GetRequest{Key: "config/app/version", AtIndex: 7},
		"kv list --at-index 7 config/ --keys":    &registryv1.ListRequest{Prefix: "config/", KeysOnly: true, AtIndex: 7},
		"service get api --at-index 7":           &registryv1.QueryServiceRequest{Service: "api", PassingOnly: true, AtIndex: 7},
		"service list --at-index 7":              &registryv1.ListServicesRequest{AtIndex: 7},
		"node list --at-index 7 -o json":         &registryv1.ListNodesRequest{AtIndex: 7},
	} {
		t.Run(line, func(t *testing.T) {
			gateway := federation(t)
			r := ctl(t, gateway, "", strings.Fields(line)...)
			require.Zero(t, r.code, r.stderr)
			same(t, want, gateway.Requests()[0])
		})
	}
}

// interrupted runs konsulctl until it has written lines lines, as somebody would who then interrupts it.
func interrupted(t *testing.T, g *konsultest.Gateway, lines int, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	environ := map[string]string{"KONSUL_ADDR": g.Address, "KONSUL_TOKEN": konsultest.Token, "KONSUL_CA_FILE": g.CAFile}
	out := &counted{left: lines, done: cancel}
	code := command.Run(ctx, cli.Env{
		In: strings.NewReader(""), Out: out, Err: io.Discard,
		Lookup: func(name string) (string, bool) { value, ok := environ[name]; return value, ok },
	}, args)
	return out.text.String(), code
}

type counted struct {
	text strings.Builder
	left int
	done func()
}

func (c *counted) Write(p []byte) (int, error) {
	if c.left -= strings.Count(string(p), "\n"); c.left <= 0 {
		c.done()
	}
	return c.text.Write(p)
}

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
	text, code := interrupted(t, gateway, 3, "watch", "kv", "--prefix", "a")
	require.Zero(t, code)
	require.Equal(t, "4\tset\tlocal/a\t1\n7\tset\tglobal/a\t2\n8\tdelete\tlocal/a\t\n", text)
	require.Equal(t, "a", konsultest.Last[*registryv1.WatchRequest](gateway).GetKeyPrefix())

	text, code = interrupted(t, gateway, 2, "watch", "kv", "a", "-o", "json")
	require.Zero(t, code)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	require.JSONEq(t, `{"event":"reset","index":5}`, lines[0])
	require.JSONEq(t, `{"event":"set","key":"a","scope":"local","value":"MQ==","index":4}`, lines[1])
}

func TestWatchServiceWritesWholeAnswers(t *testing.T) {
	gateway := konsultest.Start(t)
	konsultest.On(gateway, func(r *registryv1.WatchInstancesRequest) (*registryv1.WatchInstancesResponse, error) {
		return &registryv1.WatchInstancesResponse{Changed: true, Index: r.GetIndex() + 3, Instances: []*registryv1.ServiceInstance{instance("us-west", "api-1", passing)}}, nil
	})
	text, code := interrupted(t, gateway, 2, "watch", "service", "api", "-o", "json")
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
	r := ctl(t, gateway, "", "watch", "kv", "a")
	require.Equal(t, 4, r.code)
	require.Contains(t, r.stderr, "lacks kv:read")
}
