package command_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"konsul.dev/pkg/method"
	_ "konsul.dev/proto/gen/konsul/ca/v1"
	_ "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	_ "konsul.dev/proto/gen/konsul/federation/v1"
	_ "konsul.dev/proto/gen/konsul/registry/v1"
	_ "konsul.dev/proto/gen/konsul/wangossip/v1"
)

// called are the requests that konsulctl made in the tests of this package, by the name of their type.
var called struct {
	sync.Mutex
	requests map[protoreflect.FullName]bool
}

func note(requests []proto.Message) {
	called.Lock()
	defer called.Unlock()
	if called.requests == nil {
		called.requests = map[protoreflect.FullName]bool{}
	}
	for _, r := range requests {
		called.requests[r.ProtoReflect().Descriptor().FullName()] = true
	}
}

// withoutCommand are the methods that users may call and konsulctl does not, and why.
var withoutCommand = map[string]string{
	"/konsul.registry.v1.KVService/Batch":                     "konsulctl makes one request at a time; kv txn does several things in one",
	"/konsul.registry.v1.WatchService/WatchInstances":         "watch and service health show instances; programs follow one service",
	"/konsul.registry.v1.OperatorService/ServerStatus":        "cluster status has what every server says",
	"/konsul.ca.v1.CertificateService/GetTrustBundle":         "konsulctl needs the trust anchors before it can ask for anything",
	"/konsul.wangossip.v1.DatacenterService/WatchDatacenters": "datacenter list shows them; programs follow them",
	"/konsul.failoverrouter.v1.RouterService/WatchResolve":    "service get asks once; programs follow the answer",
}

// TestMain fails a whole run of this package's tests if users may call a method that no command called.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.list").Value.String() == "" {
		if missing := uncalled(); len(missing) > 0 {
			fmt.Fprintf(os.Stderr, "no test called these by konsulctl: give each a command and a test, or a reason in withoutCommand:\n%s\n", strings.Join(missing, "\n"))
			code = 1
		}
	}
	os.Exit(code)
}

func uncalled() []string {
	var missing []string
	for _, service := range method.Services() {
		for i := range service.Methods().Len() {
			m, err := method.Of(service.Methods().Get(i))
			if err != nil || !m.Public() || called.requests[m.Descriptor.Input().FullName()] {
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
