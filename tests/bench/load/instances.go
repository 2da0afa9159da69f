package load

import (
	"context"
	"fmt"

	etcd "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/bench/target"
)

// instance is the n-th instance of a service as the registry answers it: what etcd keeps as one
// record.
func instance(service string, n int) *registryv1.ServiceInstance {
	const index = 100_000
	node, id := fmt.Sprintf("node-%05d", n), fmt.Sprintf("%s-%05d", service, n)
	return &registryv1.ServiceInstance{
		Node: &registryv1.Node{Name: node, Address: address(n), Meta: map[string]string{"zone": "a"}, CreateIndex: index, ModifyIndex: index},
		Service: &registryv1.Service{
			Id: id, Name: service, Node: node, Address: address(n), Port: 8080, Tags: []string{"v1", "primary"},
			Meta: map[string]string{"version": "1.2.3"}, CreateIndex: index, ModifyIndex: index,
		},
		Checks: []*registryv1.Check{{
			Id: "http", Name: "http", ServiceId: id, Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING, Output: "200 OK", ModifyIndex: index,
			ModifiedAt: &timestamppb.Timestamp{Seconds: 1_790_000_000, Nanos: 123_456_789},
		}},
		Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING, Datacenter: "bench",
	}
}

func address(n int) string { return fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255) }

// serviceOf is the service with so many instances.
func serviceOf(instances int) string { return fmt.Sprintf("web-%d", instances) }

// recordKey is where etcd keeps an instance.
func recordKey(service string, n int) []byte {
	return fmt.Appendf(nil, "services/%s/%s-%05d", service, service, n)
}

// register writes an instance: its node, itself and its check, as one request.
func register(ctx context.Context, conn *grpc.ClientConn, service string, n int) error {
	i := instance(service, n)
	_, err := registryv1.NewCatalogServiceClient(conn).Register(rpc.WithToken(ctx, target.Token), &registryv1.RegisterRequest{
		Node: i.GetNode(), Service: i.GetService(), Checks: i.GetChecks(),
	})
	return err
}

// registerEtcd writes the record of an instance.
func registerEtcd(ctx context.Context, conn *grpc.ClientConn, service string, n int) error {
	record, err := proto.Marshal(instance(service, n))
	if err != nil {
		return fmt.Errorf("encode instance: %w", err)
	}
	_, err = etcd.NewKVClient(conn).Put(ctx, &etcd.PutRequest{Key: recordKey(service, n), Value: record})
	return err
}

// health asks for the instances of a service. Answers are counted but not decoded, in neither
// product: decoding would cost the generator more than answering costs the servers.
func health(conns []*grpc.ClientConn, instances int, mode registryv1.ReadMode) operation {
	request := &registryv1.QueryServiceRequest{Service: serviceOf(instances), ReadMode: mode}
	return func(ctx context.Context, server, _ int) error {
		return counted(rpc.WithToken(ctx, target.Token), conns[server], registryv1.CatalogService_QueryService_FullMethodName, request, instances)
	}
}

func healthEtcd(conns []*grpc.ClientConn, instances int, serializable bool) operation {
	prefix := []byte("services/" + serviceOf(instances) + "/")
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	request := &etcd.RangeRequest{Key: prefix, RangeEnd: end, Serializable: serializable}
	return func(ctx context.Context, server, _ int) error {
		return counted(ctx, conns[server], etcd.KV_Range_FullMethodName, request, instances)
	}
}

// leastRecord is less than any instance takes.
const leastRecord = 150

// counted calls a method and looks at nothing but the length of the answer.
func counted(ctx context.Context, conn *grpc.ClientConn, method string, request proto.Message, instances int) error {
	var length int
	if err := conn.Invoke(ctx, method, request, &length, grpc.ForceCodecV2(lean{})); err != nil {
		return err
	}
	if length < instances*leastRecord {
		return fmt.Errorf("%d bytes are not %d instances", length, instances)
	}
	return nil
}
