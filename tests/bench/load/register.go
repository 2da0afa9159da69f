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
	// nodes register again and again, with something new each time: what changes nothing would cost
	// no commit.
	nodes = 500
	// nodeVersions are what a node registers by turns: more than two, for two clients may overtake
	// each other.
	nodeVersions = 4
)

// nodeWith is a node with its services, in one of its versions.
func nodeWith(node, version int) *registryv1.RegisterNodeRequest {
	request := &registryv1.RegisterNodeRequest{}
	for i := range nodeServices {
		instance := instance(fmt.Sprintf("job-%d", i), node)
		instance.Service.Meta["build"] = strconv.Itoa(version)
		request.Node = instance.GetNode()
		request.Services = append(request.Services, &registryv1.ServiceRegistration{Service: instance.GetService()})
	}
	return request
}

// registerNode registers a node with all that runs on it in one request.
func registerNode(conns []*grpc.ClientConn) (operation, error) {
	call, err := registrations(conns, registryv1.CatalogService_RegisterNode_FullMethodName, func(request *registryv1.RegisterNodeRequest) (proto.Message, error) {
		return request, nil
	})
	return func(ctx context.Context, server, key int) error {
		return call(rpc.WithToken(ctx, target.Token), server, key)
	}, err
}

// registerNodeEtcd writes the same in one transaction: a record for the node, and one for each
// service.
func registerNodeEtcd(conns []*grpc.ClientConn) (operation, error) {
	return registrations(conns, etcd.KV_Txn_FullMethodName, func(request *registryv1.RegisterNodeRequest) (proto.Message, error) {
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
			return nil, err
		}
		for _, s := range request.GetServices() {
			if err := add("services/"+s.GetService().GetName()+"/"+s.GetService().GetId(), s.GetService()); err != nil {
				return nil, err
			}
		}
		return txn, nil
	})
}

// registrations calls a method with what it takes to register nodes. In both products requests are
// encoded before, and answers not decoded: making a node with its services costs the generator half
// of what registering it costs the servers beside it.
func registrations(conns []*grpc.ClientConn, method string, request func(*registryv1.RegisterNodeRequest) (proto.Message, error)) (operation, error) {
	var encoded [nodes][nodeVersions][]byte
	for node := range nodes {
		for version := range nodeVersions {
			message, err := request(nodeWith(node, version))
			if err != nil {
				return nil, err
			}
			if encoded[node][version], err = proto.Marshal(message); err != nil {
				return nil, fmt.Errorf("encode a registration: %w", err)
			}
		}
	}
	var registered [nodes]atomic.Uint64
	return func(ctx context.Context, server, key int) error {
		node := key % nodes
		var length int
		return conns[server].Invoke(ctx, method, encoded[node][registered[node].Add(1)%nodeVersions], &length, grpc.ForceCodecV2(lean{}))
	}, nil
}
