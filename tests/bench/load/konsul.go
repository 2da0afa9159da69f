package load

import (
	"context"

	"google.golang.org/grpc"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/bench/target"
)

// konsulOperation returns an operation of ours; nil when we have no such.
func konsulOperation(conns []*grpc.ClientConn, op Op, instances int) (operation, error) {
	clients := make([]registryv1.KVServiceClient, len(conns))
	for i, conn := range conns {
		clients[i] = registryv1.NewKVServiceClient(conn)
	}
	content := value()
	get := func(mode registryv1.ReadMode) operation {
		return func(ctx context.Context, server, key int) error {
			_, err := clients[server].Get(rpc.WithToken(ctx, target.Token), &registryv1.GetRequest{Key: Key(key), ReadMode: mode})
			return err
		}
	}
	switch op {
	case Put:
		return func(ctx context.Context, server, key int) error {
			_, err := clients[server].Set(rpc.WithToken(ctx, target.Token), &registryv1.SetRequest{Key: Key(key), Value: content})
			return err
		}, nil
	case RegisterNode:
		return registerNode(conns)
	case GetLinearizable:
		return get(registryv1.ReadMode_READ_MODE_LINEARIZABLE), nil
	case GetDefault:
		return get(registryv1.ReadMode_READ_MODE_DEFAULT), nil
	case GetStale:
		return get(registryv1.ReadMode_READ_MODE_STALE), nil
	case HealthLinearizable:
		return health(conns, instances, registryv1.ReadMode_READ_MODE_LINEARIZABLE), nil
	case HealthDefault:
		return health(conns, instances, registryv1.ReadMode_READ_MODE_DEFAULT), nil
	case HealthStale:
		return health(conns, instances, registryv1.ReadMode_READ_MODE_STALE), nil
	}
	return nil, nil
}
