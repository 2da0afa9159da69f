package konsulfx_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
)

func newHost(t *testing.T, ca *identitytest.CA) *konsulfx.Host {
	t.Helper()
	return konsulfx.NewHost(konsulfx.HostParams{Name: "agent", Config: config.DefaultBase(), Process: konsulfx.Process{
		Telemetry: obs.Discard(), Identity: ca.Source("us-east", "agent"),
		Fail: func(err error) { t.Errorf("a loop failed: %v", err) },
	}})
}

func TestAHostServesWhatItsStepsMadeUntilItStops(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	h := newHost(t, ca)
	serve := func(context.Context) error {
		_, err := h.NewServer(rpc.ServerParams{})
		return err
	}
	require.NoError(t, h.Start(t.Context(), h.Stop, h.Enroll, serve, h.Listen("agent.listen", "127.0.0.1:0")))
	conn, err := rpc.Dial([]string{h.Addr()}, rpc.ClientParams{
		Identity: ca.Source("us-east", "gateway"), Want: identity.Want{Service: "agent"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	health, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthv1.HealthCheckResponse_SERVING, health.GetStatus())

	ended := make(chan bool, 1)
	h.Go("loop", func(ctx context.Context) error {
		<-ctx.Done()
		ended <- h.Up().Err() != nil
		return nil
	})
	require.NoError(t, h.Stop(t.Context()))
	require.True(t, <-ended, "what would hold up the drain ends before the loops")
	requireFree(t, h.Addr())
}

func TestAStartThatFailsUndoesWhatItDidAlthoughItsTimeIsUp(t *testing.T) {
	h := newHost(t, identitytest.NewCA(t, identitytest.FederationID))
	broken, late := errors.New("broken"), errors.New("late")
	ctx, cancel := context.WithCancel(t.Context())
	undo := func(ctx context.Context) error {
		require.NoError(t, ctx.Err())
		return errors.Join(late, h.Stop(ctx))
	}
	err := h.Start(ctx, undo, h.Listen("agent.listen", "127.0.0.1:0"), func(context.Context) error {
		cancel()
		return broken
	}, func(context.Context) error { panic("no step follows") })
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, err, late)
	requireFree(t, h.Addr())
}

func TestAPortThatIsTakenNamesItsSetting(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	h := newHost(t, identitytest.NewCA(t, identitytest.FederationID))
	err = h.Start(t.Context(), h.Stop, h.Listen("agent.listen", taken.Addr().String()))
	require.Equal(t, admission.ReasonPort, fault.ReasonOf(err))
	require.ErrorContains(t, err, "agent.listen: cannot listen on "+taken.Addr().String())
}

func requireFree(t *testing.T, address string) {
	t.Helper()
	again, err := net.Listen("tcp", address)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}
