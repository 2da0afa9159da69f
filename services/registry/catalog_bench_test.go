package registry_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry"
	"konsul.dev/services/registry/registrytest"
)

// length is a codec that decodes nothing: the client shares the machine with what is measured.
type length struct{}

func (length) Name() string { return "proto" }

func (length) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(proto.Message)
	if !ok {
		return nil, errors.New("no message")
	}
	data, err := proto.Marshal(message)
	return mem.BufferSlice{mem.SliceBuffer(data)}, err
}

func (length) Unmarshal(data mem.BufferSlice, v any) error {
	n, ok := v.(*int)
	if !ok {
		return errors.New("no length")
	}
	*n = data.Len()
	return nil
}

func dialRaw(b *testing.B, c *registrytest.Cluster, s *registrytest.Server) *grpc.ClientConn {
	b.Helper()
	conn, err := rpc.Dial([]string{s.Address()}, rpc.ClientParams{
		Identity: c.CA.Source(c.DC, "gateway"), Want: identity.Want{Datacenter: c.DC, Service: registry.Name}, Telemetry: obs.Discard(),
	})
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// BenchmarkHealthQuery asks one server over gRPC and TLS. A filter that lets everything through
// shows what an answer costs that is not kept encoded.
func BenchmarkHealthQuery(b *testing.B) {
	c := registrytest.Start(b, 1, registrytest.Options{})
	conn := dialRaw(b, c, c.Servers[0])
	cl := c.Client(c.Servers[0])
	for _, size := range []int{100, 1000} {
		name := fmt.Sprint("web-", size)
		for n := range size / 10 {
			req := fleet(fmt.Sprintf("%s-node-%d", name, n), name, 10, 0)
			for i, s := range req.GetServices() {
				s.Service.Id = fmt.Sprintf("%s-%d-%d", name, n, i)
			}
			_, err := cl.Catalog.RegisterNode(cl.Ctx(), req)
			require.NoError(b, err)
		}
		for kind, filter := range map[string]string{"kept": "", "marshalled": "Service.Port != 1"} {
			b.Run(fmt.Sprintf("instances=%d/%s", size, kind), func(b *testing.B) {
				req := &registryv1.QueryServiceRequest{Service: name, Filter: filter}
				var got int
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					var n int
					for pb.Next() {
						if err := conn.Invoke(cl.Ctx(), registryv1.CatalogService_QueryService_FullMethodName, req, &n, grpc.ForceCodecV2(length{})); err != nil {
							b.Error(err)
						}
					}
					got = n
				})
				b.SetBytes(int64(got))
			})
		}
	}
}

// BenchmarkRegisterNode registers a node with ten services as one request, at three servers with
// disks.
func BenchmarkRegisterNode(b *testing.B) {
	c := registrytest.Start(b, 3, registrytest.Options{})
	cl := c.Client(c.Leader())
	var n int
	for b.Loop() {
		n++
		req := fleet(fmt.Sprint("node-", n), "api", 10, 0)
		for i, s := range req.GetServices() {
			s.Service.Id = fmt.Sprintf("api-%d-%d", n, i)
		}
		_, err := cl.Catalog.RegisterNode(cl.Ctx(), req)
		require.NoError(b, err)
	}
}
