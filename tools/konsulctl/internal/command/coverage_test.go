package command_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	_ "konsul.dev/proto/gen/konsul/ca/v1"
	_ "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	_ "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	_ "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/pkg/method"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

// withoutCommand are the methods that users may call and konsulctl does not, and why.
var withoutCommand = map[string]string{
	"/konsul.registry.v1.KVService/Batch":                     "konsulctl makes one request at a time; kv txn does several things in one",
	"/konsul.registry.v1.OperatorService/ServerStatus":        "cluster status has what every server says",
	"/konsul.ca.v1.CertificateService/GetTrustBundle":         "konsulctl needs the trust anchors before it can ask for anything",
	"/konsul.wangossip.v1.DatacenterService/WatchDatacenters": "datacenter list shows them; programs follow them",
	"/konsul.failoverrouter.v1.RouterService/WatchResolve":    "service get asks once; programs follow the answer",
}

// TestEveryMethodThatUsersMayCallHasACommand runs every line that a noun has a golden for, a
// registration with a policy and the watches, and looks at what was asked for.
func TestEveryMethodThatUsersMayCallHasACommand(t *testing.T) {
	goldens, err := filepath.Glob("*/testdata/*.golden")
	require.NoError(t, err)
	require.Greater(t, len(goldens), 100)
	var lines []string
	for _, path := range goldens {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		line, _, _ := strings.Cut(strings.TrimPrefix(string(text), "$ konsulctl "), " -o table\n")
		lines = append(lines, line)
	}
	over := fault.New(fault.PermissionDenied, "PERMISSION_DENIED", "enough was seen")
	gateway := commandtest.Federation(t)
	commandtest.Workshop(t)
	commandtest.Backups(t, gateway)
	require.NoError(t, os.WriteFile("api.yaml", []byte("service: {name: api, address: h, failover: [{datacenter: us-west}]}"), 0o600))
	konsultest.On(gateway, func(*registryv1.WatchRequest) (*registryv1.WatchResponse, error) { return nil, over })
	konsultest.On(gateway, func(*registryv1.WatchInstancesRequest) (*registryv1.WatchInstancesResponse, error) { return nil, over })
	for _, line := range append(lines, "service register --file api.yaml", "watch kv k", "watch service api") {
		commandtest.Ctl(t, gateway, "", commandtest.AsArguments(line)...)
	}
	called := map[protoreflect.FullName]bool{}
	for _, r := range gateway.Requests() {
		called[r.ProtoReflect().Descriptor().FullName()] = true
	}
	require.Empty(t, uncalled(called), "give each a command and a golden, or a reason in withoutCommand")
}

func uncalled(called map[protoreflect.FullName]bool) []string {
	var missing []string
	for _, service := range method.Services() {
		for i := range service.Methods().Len() {
			m, err := method.Of(service.Methods().Get(i))
			if err != nil || !m.Public() || called[m.Descriptor.Input().FullName()] {
				continue // Other people's contracts have no options.
			}
			if withoutCommand[m.FullName] == "" {
				missing = append(missing, m.FullName)
			}
		}
	}
	slices.Sort(missing)
	return missing
}
