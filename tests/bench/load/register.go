package load

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

	etcd "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/bench/target"
)

const (
	// nodeServices run on each node that registers.
	nodeServices = 10
	// nodes register again and again, with something new each time: what changes nothing would cost no commit.
	nodes = 500
)

// nodeWith is a node with its services, in its n-th version.
func nodeWith(node int, n uint64) *registryv1.RegisterNodeRequest {
	request := &registryv1.RegisterNodeRequest{}
	for i := range nodeServices {
		instance := instance(fmt.Sprintf("job-%d", i), node)
		instance.Service.Meta["build"] = strconv.FormatUint(n, 10)
		request.Node = instance.GetNode()
		request.Services = append(request.Services, &registryv1.ServiceRegistration{Service: instance.GetService()})
	}
	return request
}

// registerNode registers a node with all that runs on it in one request.
func registerNode(conns []*grpc.ClientConn) operation {
	var versions atomic.Uint64
	return func(ctx context.Context, server, key int) error {
		_, err := registryv1.NewCatalogServiceClient(conns[server]).RegisterNode(rpc.WithToken(ctx, target.Token), nodeWith(key%nodes, versions.Add(1)))
		return err
	}
}

// registerNodeEtcd writes the same in one transaction: a record for the node, and one for each service.
func registerNodeEtcd(conns []*grpc.ClientConn) operation {
	var versions atomic.Uint64
	return func(ctx context.Context, server, key int) error {
		request := nodeWith(key%nodes, versions.Add(1))
		txn := &etcd.TxnRequest{}
		add := func(key string, record proto.Message) error {
			text, err := proto.Marshal(record)
			if err != nil {
				return fmt.Errorf("encode %s: %w", key, err)
			}
			txn.Success = append(txn.Success, &etcd.RequestOp{
				Request: &etcd.RequestOp_RequestPut{RequestPut: &etcd.PutRequest{Key: []byte(key), Value: text}},
			})
			return nil
		}
		if err := add("nodes/"+request.GetNode().GetName(), request.GetNode()); err != nil {
			return err
		}
		for _, s := range request.GetServices() {
			if err := add("services/"+s.GetService().GetName()+"/"+s.GetService().GetId(), s.GetService()); err != nil {
				return err
			}
		}
		_, err := etcd.NewKVClient(conns[server]).Txn(ctx, txn)
		return err
	}
}
