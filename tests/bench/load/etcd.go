package load

import (
	"context"

	etcd "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// etcdOperation returns an operation of etcd; nil when it has no such.
func etcdOperation(conns []*grpc.ClientConn, op Op, instances int) (operation, error) {
	clients := make([]etcd.KVClient, len(conns))
	for i, conn := range conns {
		clients[i] = etcd.NewKVClient(conn)
	}
	content := value()
	get := func(serializable bool) operation {
		return func(ctx context.Context, server, key int) error {
			_, err := clients[server].Range(ctx, &etcd.RangeRequest{Key: []byte(Key(key)), Serializable: serializable})
			return err
		}
	}
	switch op {
	case Put:
		return func(ctx context.Context, server, key int) error {
			_, err := clients[server].Put(ctx, &etcd.PutRequest{Key: []byte(Key(key)), Value: content})
			return err
		}, nil
	case RegisterNode:
		return registerNodeEtcd(conns)
	case GetLinearizable:
		return get(false), nil
	case GetStale:
		return get(true), nil
	case HealthLinearizable:
		return healthEtcd(conns, instances, false), nil
	case HealthStale:
		return healthEtcd(conns, instances, true), nil
	}
	return nil, nil
}
