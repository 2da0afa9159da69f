package registry_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	_ "konsul.dev/proto/gen/konsul/options/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

// example is a contract as a file would hold it: messages, a service, and options. Nothing else in
// this program knows of it.
var example = sync.OnceValue(func() protoreflect.ServiceDescriptor {
	file := &descriptorpb.FileDescriptorProto{}
	err := prototext.Unmarshal([]byte(`
		name: "example/v1/example.proto" package: "example.v1" syntax: "proto3" dependency: "konsul/options/v1/options.proto"
		message_type {
			name: "RenameRequest"
			field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
			field { name: "request_id" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
		}
		message_type {
			name: "RenameResponse"
			field { name: "server" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
			field { name: "request_id" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
		}
		service {
			name: "ExampleService"
			options { [konsul.options.v1.server] { name: "registry" defaults { scope: METHOD_SCOPE_LOCAL users: USERS_WITH_TOKEN } } }
			method {
				name: "Rename" input_type: ".example.v1.RenameRequest" output_type: ".example.v1.RenameResponse"
				options { [konsul.options.v1.method] {
					route: ROUTE_LEADER audited: true
					needs { resource: "service" access: "write" name: "example/" field: "name" }
				} }
			}
		}`), file)
	if err != nil {
		panic(err)
	}
	made, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	if err := protoregistry.GlobalFiles.RegisterFile(made); err != nil {
		panic(err)
	}
	return made.Services().Get(0)
})

// handler serves methods of the example as generated code does.
func handler(service protoreflect.ServiceDescriptor, handle func(req, resp protoreflect.Message)) *grpc.ServiceDesc {
	out := &grpc.ServiceDesc{ServiceName: string(service.FullName()), HandlerType: (*any)(nil)}
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		out.Methods = append(out.Methods, grpc.MethodDesc{
			MethodName: string(m.Name()),
			Handler: func(_ any, ctx context.Context, receive func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
				req := dynamicpb.NewMessage(m.Input())
				if err := receive(req); err != nil {
					return nil, err
				}
				info := &grpc.UnaryServerInfo{FullMethod: "/" + string(service.FullName()) + "/" + string(m.Name())}
				return interceptor(ctx, req, info, func(_ context.Context, req any) (any, error) {
					resp := dynamicpb.NewMessage(m.Output())
					handle(req.(*dynamicpb.Message), resp) //nolint:forcetypeassert // it was made above
					return resp, nil
				})
			},
		})
	}
	return out
}

func text(m protoreflect.Message, field protoreflect.Name) string {
	return m.Get(m.Descriptor().Fields().ByName(field)).String()
}

func setText(m protoreflect.Message, field protoreflect.Name, value string) {
	m.Set(m.Descriptor().Fields().ByName(field), protoreflect.ValueOfString(value))
}

// A new RPC takes a contract with options and a handler, nothing else: it is admitted, checked,
// brought to the leader and audited by what the options say.
func TestARPCIsItsContractAndItsHandler(t *testing.T) {
	t.Parallel()
	service := example()
	c := registrytest.Start(t, 3, registrytest.Options{Register: func(server string, r grpc.ServiceRegistrar) {
		r.RegisterService(handler(service, func(req, resp protoreflect.Message) {
			setText(resp, "server", server)
			setText(resp, "request_id", text(req, "request_id"))
		}), nil)
	}})
	follower := c.Follower()
	cl := c.Client(follower)
	call := func(ctx context.Context, peer string) (protoreflect.Message, error) {
		conn, err := rpc.Dial([]string{follower.Address()}, rpc.ClientParams{
			Identity: c.CA.Source(c.DC, peer), Want: identity.Want{Datacenter: c.DC, Service: registry.Name}, Telemetry: obs.Discard(),
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		method := service.Methods().Get(0)
		req, resp := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
		setText(req, "name", "web")
		return resp, conn.Invoke(ctx, "/example.v1.ExampleService/Rename", proto.Message(req), resp)
	}

	_, err := call(cl.Ctx(), "agent")
	require.Equal(t, rpc.ReasonPeerDenied, fault.ReasonOf(err), "%v", err)
	_, err = call(cl.Bare(), "gateway")
	require.Equal(t, rpc.ReasonTokenRequired, fault.ReasonOf(err), "%v", err)
	lesser := limited(t, cl, "lesser", "service web write")
	_, err = call(cl.As(lesser.GetSecret()), "gateway")
	requireLacks(t, err, "service:write on example/web")

	able := limited(t, cl, "able", "service example/ write")
	resp, err := call(cl.As(able.GetSecret()), "gateway")
	require.NoError(t, err)
	leader := c.Leader()
	require.Equal(t, leader.ID(), text(resp, "server"))
	require.NotEmpty(t, text(resp, "request_id"), "a write can be repeated")
	registrytest.Eventually(t, func() error {
		log, err := os.ReadFile(leader.Dir("audit.log"))
		require.NoError(t, err)
		if !strings.Contains(string(log), "/example.v1.ExampleService/Rename") {
			return os.ErrNotExist
		}
		require.Contains(t, string(log), "service:write on example/web")
		return nil
	})
}
