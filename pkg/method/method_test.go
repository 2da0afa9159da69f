package method_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "konsul.dev/proto/gen/konsul/agent/v1"
	_ "konsul.dev/proto/gen/konsul/ca/v1"
	_ "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	optionsv1 "konsul.dev/proto/gen/konsul/options/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	replicatorv1 "konsul.dev/proto/gen/konsul/replicator/v1"
	_ "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/method"
)

// TestEveryMethodOfTheContractsSaysWhatItIs fails when one is added and nobody decided.
func TestEveryMethodOfTheContractsSaysWhatItIs(t *testing.T) {
	seen := 0
	for _, service := range method.Services() {
		if !strings.HasPrefix(string(service.FullName()), "konsul.") {
			continue
		}
		for i := range service.Methods().Len() {
			m, err := method.Of(service.Methods().Get(i))
			require.NoError(t, err)
			require.NotEmpty(t, m.Server)
			seen++
		}
	}
	require.Greater(t, seen, 90)
}

func find(t *testing.T, fullName string) method.Method {
	t.Helper()
	m, err := method.Find(fullName)
	require.NoError(t, err)
	return m
}

func TestAMethodHasWhatItsServiceSaysAndItDoesNot(t *testing.T) {
	get := find(t, registryv1.KVService_Get_FullMethodName)
	require.Equal(t, optionsv1.Route_ROUTE_READ, get.GetRoute())
	require.Equal(t, optionsv1.MethodScope_METHOD_SCOPE_LOCAL, get.GetScope())
	require.True(t, get.IsIdempotent())
	require.IsType(t, &registryv1.GetRequest{}, get.NewRequest())
	require.IsType(t, &registryv1.GetResponse{}, get.NewReply())

	set := find(t, registryv1.KVService_Set_FullMethodName)
	require.Zero(t, set.GetScope(), "the function decides")
	require.Equal(t, "key", set.GetScopeBy())
	require.False(t, set.IsIdempotent())

	replicate := find(t, federationv1.ReplicationService_Replicate_FullMethodName)
	require.Empty(t, replicate.GetPeers(), "not those of its service")
	require.Equal(t, []string{"replicator"}, replicate.GetFarPeers())

	status := find(t, replicatorv1.StatusService_GetStatus_FullMethodName)
	require.Equal(t, []string{"replicator", "registry"}, []string{status.Server, status.Front})
	fronted, err := method.Served("registry")
	require.NoError(t, err)
	require.Contains(t, names(fronted), status.FullName)

	require.False(t, method.IsIdempotent("/konsul.registry.v1.KVService/NotThere"))
	require.False(t, method.IsIdempotent("/grpc.health.v1.Health/Check"), "it has no options")
}

func names(methods []method.Method) (out []string) {
	for _, m := range methods {
		out = append(out, m.FullName)
	}
	return out
}

// contract makes a method with options, of a request that has a text, texts, a number and a message
// of its own kind.
func contract(t *testing.T, server, options string) protoreflect.MethodDescriptor {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{}
	require.NoError(t, prototext.Unmarshal([]byte(`
		name: "contract.proto" package: "contract.v1" syntax: "proto3" dependency: "konsul/options/v1/options.proto"
		message_type {
			name: "Message"
			field { name: "text" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
			field { name: "texts" number: 2 type: TYPE_STRING label: LABEL_REPEATED }
			field { name: "number" number: 3 type: TYPE_UINT64 label: LABEL_OPTIONAL }
			field { name: "inner" number: 4 type: TYPE_MESSAGE type_name: ".contract.v1.Message" label: LABEL_OPTIONAL }
			field { name: "many" number: 5 type: TYPE_MESSAGE type_name: ".contract.v1.Message" label: LABEL_REPEATED }
		}
		service {
			name: "ContractService"
			options { `+server+` }
			method { name: "Call" input_type: ".contract.v1.Message" output_type: ".contract.v1.Message" options { `+options+` } }
		}`), file))
	made, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	require.NoError(t, err)
	return made.Services().Get(0).Methods().Get(0)
}

func TestOptionsThatSayTooLittleOrTooMuchAreRefused(t *testing.T) {
	const server = `[konsul.options.v1.server] { name: "registry" }`
	const good = `route: ROUTE_HERE users: USERS_WITH_TOKEN check: TOKEN_CHECK_NONE `
	for name, c := range map[string]struct{ server, options, want string }{
		"good":                      {server, good, ""},
		"no options":                {server, ``, "no route"},
		"no server":                 {``, good, "name no server"},
		"two routes":                {server, good + `route_by: "x"`, "no route, or two"},
		"no scope":                  {server, `route: ROUTE_READ users: USERS_WITH_TOKEN check: TOKEN_CHECK_NONE`, "no scope"},
		"two scopes":                {server, `route: ROUTE_READ scope: METHOD_SCOPE_LOCAL scope_by: "x" users: USERS_WITH_TOKEN check: TOKEN_CHECK_NONE`, "no scope, or two"},
		"users not mentioned":       {server, `route: ROUTE_HERE peers: "ca" check: TOKEN_CHECK_PROGRAMS`, "whether users may call"},
		"nobody":                    {server, `route: ROUTE_HERE users: USERS_NONE check: TOKEN_CHECK_PROGRAMS`, "let nobody call"},
		"no permission":             {server, `route: ROUTE_HERE users: USERS_WITH_TOKEN`, "no permission"},
		"permission and exemption":  {server, good + `needs { resource: "kv" access: "read" }`, "no permission, or"},
		"users for programs":        {server, `route: ROUTE_HERE users: USERS_WITH_TOKEN check: TOKEN_CHECK_PROGRAMS`, "no token"},
		"a field that is not there": {server, `route: ROUTE_HERE users: USERS_WITH_TOKEN needs { resource: "kv" access: "read" field: "nothing" }`, `no field "nothing"`},
		"a function and a field":    {server, `route: ROUTE_HERE users: USERS_WITH_TOKEN needs { resource: "kv" by: "x" field: "text" }`, "a function, a name and a field"},
		"a secret that is no text":  {server, good + `secret: "number"`, "does not lead to a text"},
		"a subject never found":     {server, good + `subject { field: "text" found: "text" }`, "no repeated text"},
	} {
		t.Run(name, func(t *testing.T) {
			options := c.options
			if options != "" {
				options = `[konsul.options.v1.method] { ` + options + ` }`
			}
			_, err := method.Of(contract(t, c.server, options))
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "/contract.v1.ContractService/Call")
		})
	}
}

func TestPaths(t *testing.T) {
	m, err := method.Of(contract(t, `[konsul.options.v1.server] { name: "x" defaults { route: ROUTE_HERE users: USERS_WITH_TOKEN check: TOKEN_CHECK_NONE } }`, ``))
	require.NoError(t, err)
	for path, want := range map[string][]string{
		"text": {"a"}, "texts": {"b", "c"}, "inner.text": {"d"}, "inner.texts": {}, "inner.inner.text": {""},
	} {
		p, err := method.ParsePath(m.Descriptor.Input(), path)
		require.NoError(t, err, path)
		message := m.NewRequest()
		require.NoError(t, prototext.Unmarshal([]byte(`text: "a" texts: ["b", "c"] inner { text: "d" }`), message))
		require.Equal(t, want, p.Values(message), path)
	}
	for _, path := range []string{"", "nothing", "number", "inner", "text.text", "many.text", "inner.nothing"} {
		_, err := method.ParsePath(m.Descriptor.Input(), path)
		require.Error(t, err, path)
	}
	text, err := method.ParsePath(m.Descriptor.Input(), "text")
	require.NoError(t, err)
	message := m.NewRequest()
	text.Fill(message, "x")
	text.Fill(message, "y")
	require.Equal(t, "x", text.Value(message), "it was there")
	require.False(t, proto.Equal(message, m.NewRequest()))
}
