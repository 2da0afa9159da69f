package load

import (
	"context"
	"errors"

	etcd "go.etcd.io/etcd/api/v3/etcdserverpb"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/bench/target"
)

// Leadership is who leads a cluster.
type Leadership struct {
	// Server is the place of the leader among the addresses.
	Server int
	Term   uint64
}

// Leader asks who leads.
func Leader(ctx context.Context, access target.Access) (Leadership, error) {
	d, err := open(access, Put, 0)
	if err != nil {
		return Leadership{}, err
	}
	defer d.close()
	if access.Kind == target.Etcd {
		return leaderEtcd(ctx, d)
	}
	return leaderKonsul(ctx, d)
}

func leaderKonsul(ctx context.Context, d *driver) (Leadership, error) {
	for i, conn := range d.conns {
		status, err := registryv1.NewOperatorServiceClient(conn).ServerStatus(rpc.WithToken(ctx, target.Token), &registryv1.ServerStatusRequest{})
		if err != nil {
			return Leadership{}, err
		}
		if s := status.GetServer(); s.GetState() == "leader" {
			return Leadership{i, s.GetTerm()}, nil
		}
	}
	return Leadership{}, errors.New("nobody leads")
}

func leaderEtcd(ctx context.Context, d *driver) (Leadership, error) {
	for i, conn := range d.conns {
		status, err := etcd.NewMaintenanceClient(conn).Status(ctx, &etcd.StatusRequest{})
		if err != nil {
			return Leadership{}, err
		}
		if status.GetLeader() == status.GetHeader().GetMemberId() {
			return Leadership{i, status.GetRaftTerm()}, nil
		}
	}
	return Leadership{}, errors.New("nobody leads")
}
