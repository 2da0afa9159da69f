package konsul_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsul/konsultest"
)

// nowhere returns an address on which nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return "https://" + listener.Addr().String()
}

func answerStatus(g *konsultest.Gateway, dc string) {
	konsultest.On(g, func(*registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
		return &registryv1.ClusterStatusResponse{Datacenter: dc}, nil
	})
}

func TestTokenTravelsAsBearer(t *testing.T) {
	gateway := konsultest.Start(t)
	var header []string
	konsultest.OnContext(gateway, func(ctx context.Context, _ *registryv1.ClusterStatusRequest) (*registryv1.ClusterStatusResponse, error) {
		header = metadata.ValueFromIncomingContext(ctx, "authorization")
		return &registryv1.ClusterStatusResponse{}, nil
	})
	_, err := gateway.Client(t).Cluster.Status(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, []string{"Bearer " + konsultest.Token}, header)
}

func TestWrongTokenNamesTheSetting(t *testing.T) {
	gateway := konsultest.Start(t)
	cfg := gateway.Config()
	cfg.Token = "wrong"
	client, err := konsul.New(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	_, err = client.Cluster.Status(t.Context(), "")
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Unauthenticated, f.Code())
	require.Equal(t, "TOKEN_UNKNOWN", f.Reason())
}

func TestUnknownRootsNameTheSetting(t *testing.T) {
	gateway, other := konsultest.Start(t), konsultest.Start(t)
	cfg := gateway.Config()
	cfg.CAFile = other.CAFile
	client, err := konsul.New(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	_, err = client.Cluster.Status(t.Context(), "")
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, konsul.ReasonUnreachable, f.Reason())
	require.Contains(t, f.Remedy(), konsul.EnvCAFile)
}

func TestNobodyThere(t *testing.T) {
	cfg := konsultest.Start(t).Config()
	cfg.Addresses, cfg.Timeout = []string{nowhere(t)}, 300*time.Millisecond
	client, err := konsul.New(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	_, err = client.Cluster.Status(t.Context(), "")
	f, ok := fault.As(err)
	require.True(t, ok)
	require.Equal(t, fault.Unavailable, f.Code(), err)
	require.Equal(t, konsul.ReasonUnreachable, f.Reason())
	require.Contains(t, f.Message(), cfg.Addresses[0])
}

func TestFirstReachableGatewayIsPreferredAndTheNextTakesOver(t *testing.T) {
	first, second := konsultest.Start(t), konsultest.Start(t)
	answerStatus(first, "first")
	answerStatus(second, "second")
	cfg := trustBoth(t, first, second)
	cfg.Addresses = []string{nowhere(t), first.Address, second.Address}
	client, err := konsul.New(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()

	status, err := client.Cluster.Status(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "first", status.Datacenter)
	first.Stop()
	status, err = client.Cluster.Status(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "second", status.Datacenter)
}
