package command_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

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

// withoutCommand are the methods that REST has and konsulctl has not, and why.
var withoutCommand = map[string]string{
	"konsul.registry.v1.KVService.Batch":             "konsulctl makes one request at a time; kv txn does several things in one",
	"konsul.ca.v1.CertificateService.GetTrustBundle": "konsulctl needs the trust anchors before it can ask for anything",
}

// TestMain fails a whole run of this package's tests if REST has a method that no command called.
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
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				method := methods.Get(j)
				name := string(method.FullName())
				if !proto.HasExtension(method.Options(), annotations.E_Http) || called.requests[method.Input().FullName()] {
					continue
				}
				if withoutCommand[name] == "" {
					missing = append(missing, name)
				}
			}
		}
		return true
	})
	slices.Sort(missing)
	return missing
}
