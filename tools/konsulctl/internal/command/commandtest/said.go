package commandtest

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Same compares requests, but for their request ids.
func Same(t *testing.T, want, got proto.Message) {
	t.Helper()
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&registryv1.SetRequest{}, "request_id"),
		protocmp.IgnoreFields(&registryv1.RegisterRequest{}, "request_id"), protocmp.IgnoreFields(&registryv1.SetFailoverPolicyRequest{}, "request_id")))
}

// MachineWords are what a library says of our types and its own functions, and nobody can act on.
var MachineWords = regexp.MustCompile(`strconv\.|cannot unmarshal|!!|command\.|cli\.|json:|yaml:|proto:|pflag|grpc:|group \[|%!|0x[0-9a-f]{6}`)

// Said is what a refusal must hold: a field, a remedy, and no words of machines.
func Said(t *testing.T, r Result, field string) {
	t.Helper()
	require.Equal(t, 2, r.Code, r.Stderr)
	require.Empty(t, r.Stdout)
	require.Contains(t, r.Stderr, "  field: "+field+"\n")
	require.Contains(t, r.Stderr, "  remedy: ")
	require.Contains(t, r.Stderr, "  reason: ")
	require.NotRegexp(t, MachineWords, r.Stderr)
}
