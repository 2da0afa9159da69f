package rpc_test

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/konsultest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
)

var anyService = rpc.Access{federationv1.FederationService_ServiceDesc.ServiceName: {Peers: []rpc.Peer{{Service: "*"}}}}

func TestACallToAServerThatFellSilentEndsSoonAndTheNextOnesGoElsewhere(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	paused := konsultest.NewPausable(t, serve(t, ca, federation{}, anyService))
	healthy := serve(t, ca, federation{}, anyService)
	conn, err := rpc.Dial([]string{paused.Addr(), healthy}, rpc.ClientParams{
		Identity: ca.Source("us-east", "gateway"), Want: identity.Want{Service: "registry"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	client := federationv1.NewFederationServiceClient(conn)
	call := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := client.GetFederation(ctx, &federationv1.GetFederationRequest{})
		return err
	}
	require.Eventually(t, func() bool { // Until both are connected: calls go to one after the other.
		before := paused.Passed()
		for range 4 {
			require.NoError(t, call())
		}
		return before > 0 && paused.Passed() > before
	}, 20*time.Second, time.Millisecond)
	paused.Pause()
	var failed error
	require.Eventually(t, func() bool {
		err := call()
		if err != nil {
			failed = err
		}
		return err == nil && failed != nil // What comes after the one that was on its way is answered elsewhere.
	}, 20*time.Second, time.Millisecond)
	require.Equal(t, fault.Unavailable, fault.CodeOf(failed), "%v", failed)
	require.Empty(t, fault.ReasonOf(failed), "like a connection that broke, it promises nothing")
	require.Contains(t, failed.Error(), "fallen silent")

	paused.Resume()
	require.Eventually(t, func() bool {
		before := paused.Passed()
		for range 4 {
			require.NoError(t, call())
		}
		return paused.Passed() > before
	}, 20*time.Second, 100*time.Millisecond, "a server that is heard again is used again")
}

func TestAloneAndSilentRefusesAtOnceUntilItIsHeard(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	paused := konsultest.NewPausable(t, serve(t, ca, federation{}, anyService))
	conn, err := rpc.Dial([]string{paused.Addr()}, rpc.ClientParams{
		Identity: ca.Source("us-east", "gateway"), Want: identity.Want{Service: "registry"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	client := federationv1.NewFederationServiceClient(conn)
	_, err = client.GetFederation(t.Context(), &federationv1.GetFederationRequest{})
	require.NoError(t, err)
	paused.Pause()
	_, err = client.GetFederation(t.Context(), &federationv1.GetFederationRequest{})
	require.Equal(t, fault.Unavailable, fault.CodeOf(err), "%v", err)
	for range 100 { // each would take two seconds
		_, err = client.GetFederation(t.Context(), &federationv1.GetFederationRequest{})
		require.Contains(t, err.Error(), "every server that is connected has fallen silent")
	}
	paused.Resume()
	require.Eventually(t, func() bool {
		_, err := client.GetFederation(t.Context(), &federationv1.GetFederationRequest{})
		return err == nil
	}, 20*time.Second, 50*time.Millisecond)
}

func TestASilentServerIsHeardAgainThoughWhoAskedItGaveUpFirst(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	paused := konsultest.NewPausable(t, serve(t, ca, federation{}, anyService))
	telemetry, said := obs.Discard(), make(lines, 100)
	telemetry.Log = slog.New(slog.NewTextHandler(said, nil))
	conn, err := rpc.Dial([]string{paused.Addr()}, rpc.ClientParams{
		Identity: ca.Source("us-east", "gateway"), Want: identity.Want{Service: "registry"}, Telemetry: telemetry,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	client := federationv1.NewFederationServiceClient(conn)
	call := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := client.GetFederation(ctx, &federationv1.GetFederationRequest{})
		return err
	}
	require.NoError(t, call(10*time.Second))
	paused.Pause()
	// Longer than it takes until the server is asked, and shorter than it may take to answer: when
	// it is found silent, nobody waits for it any more.
	require.Error(t, call(1200*time.Millisecond))
	require.Contains(t, said.next(t), "answers nothing")
	paused.Resume()
	require.Contains(t, said.next(t), "is heard again")
	require.NoError(t, call(10*time.Second))
}

// lines are what a log says, one by one.
type lines chan string

// Write implements io.Writer.
func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func (l lines) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("the log says nothing")
		return ""
	}
}

func TestANameThatCannotBeResolvedYetIsAskedForAgain(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	host, port, err := net.SplitHostPort(serve(t, ca, federation{}, anyService))
	require.NoError(t, err)
	var asked atomic.Int32
	conn, err := rpc.Dial([]string{net.JoinHostPort("registry.us-east", port)}, rpc.ClientParams{
		Identity: ca.Source("us-east", "gateway"), Want: identity.Want{Service: "registry"}, Telemetry: obs.Discard(),
		Lookup: func(ctx context.Context, _ string) ([]string, error) {
			switch asked.Add(1) {
			case 1: // A name server elsewhere that never answers.
				<-ctx.Done()
				return nil, ctx.Err()
			case 2:
				return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
			}
			return []string{host}, nil
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	client := federationv1.NewFederationServiceClient(conn)
	require.Eventually(t, func() bool {
		_, err := client.GetFederation(t.Context(), &federationv1.GetFederationRequest{})
		return err == nil
	}, 15*time.Second, 50*time.Millisecond)
}

func TestAServerOfAnotherDatacenterIsNotRefusedWhenItAsksWhetherSomebodyIsThere(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	conn, err := rpc.Dial([]string{serve(t, ca, federation{}, anyService)}, rpc.ClientParams{
		Identity: ca.Source("us-west", "registry"), Want: identity.Want{Datacenter: "us-east", Service: "registry"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err, "each refusal would be a line of the audit log")
}
