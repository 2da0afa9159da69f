package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/gateway"
)

func federationOf(t *testing.T, r *running, source identity.Source, dc string) (string, error) {
	t.Helper()
	client := federationv1.NewFederationServiceClient(r.components(t, source, dc))
	resp, err := client.GetFederation(t.Context(), &federationv1.GetFederationRequest{})
	return resp.GetFederation().GetDatacenter(), err
}

// twoDatacenters returns gateways that know each other from gossip.
func twoDatacenters(t *testing.T) (ca *identitytest.CA, dcEast, dcWest *datacenter, gwEast, gwWest *running) {
	t.Helper()
	ca = identitytest.NewCA(t, identitytest.FederationID)
	dcEast, dcWest = newDatacenter(t, ca, east), newDatacenter(t, ca, west)
	gwEast, gwWest = start(t, ca, dcEast), start(t, ca, dcWest)
	dcEast.learns(west, gwWest.mesh)
	dcWest.learns(east, gwEast.mesh)
	return ca, dcEast, dcWest, gwEast, gwWest
}

func TestControlTrafficIsPassedOnUndecrypted(t *testing.T) {
	ca, dcEast, _, gwEast, gwWest := twoDatacenters(t)
	caller := ca.Source(west, "registry")
	eventually(t, "west reaches east", func() bool {
		dc, err := federationOf(t, gwWest, caller, east)
		return err == nil && dc == east
	})
	// What the far end saw is the caller's own certificate, so no gateway was a party to the TLS.
	client := registryv1.NewKVServiceClient(gwWest.components(t, caller, east))
	_, err := client.Set(t.Context(), &registryv1.SetRequest{Key: "k", Value: make([]byte, 300<<10)})
	require.NoError(t, err)
	dcEast.mu.Lock()
	require.Equal(t, caller.ID(), dcEast.callers[len(dcEast.callers)-1])
	dcEast.mu.Unlock()

	eventually(t, "bytes are counted while connections live", func() bool {
		return gwWest.metric(t, "konsul_mesh_gateway_bytes_sent", "source_dc="+west, "target_dc="+east) > 300<<10 &&
			gwWest.metric(t, "konsul_mesh_gateway_bytes_received", "source_dc="+east, "target_dc="+west) > 0 &&
			gwEast.metric(t, "konsul_mesh_gateway_bytes_received", "target_dc="+east) > 300<<10
	})
	require.GreaterOrEqual(t, gwWest.metric(t, "konsul_mesh_gateway_connections", "datacenter="+east), 1.0)
	problems, err := testutil.GatherAndLint(gwWest.telemetry.Metrics)
	require.NoError(t, err)
	for _, p := range problems {
		require.Contains(t, p.Metric, "konsul_mesh_gateway_", "only ADR-0027's names may break rules: %s", p.Text)
	}
}

func TestNobodyGetsInWithoutACertificate(t *testing.T) {
	_, _, _, _, gwWest := twoDatacenters(t)
	for _, sni := range []string{
		identity.ControlSNI("registry", west, trustDomain), identity.ControlSNI("registry", east, trustDomain), identity.WorkloadSNI("api", west, trustDomain),
	} {
		eventually(t, sni, func() bool {
			conn, err := gwWest.viaMesh(t, &tls.Config{ServerName: sni, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			if err == nil {
				_, err = conn.Read(make([]byte, 1)) // TLS 1.3 says no after the client's side of the handshake
			}
			return err != nil && errors.As(err, new(*net.OpError))
		})
	}
}

func TestUnroutableNamesAreRejected(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	r := start(t, ca, newDatacenter(t, ca, east))
	for name, c := range map[string]struct{ sni, reason string }{
		"foreign trust domain": {"registry.control.us-east.99999999-2222-4333-8444-555555555555.konsul", "foreign_trust_domain"},
		"unknown datacenter":   {identity.ControlSNI("registry", "mars", trustDomain), "unknown_datacenter"},
		"unknown component":    {identity.ControlSNI("etcd", east, trustDomain), "unknown_component"},
		"not for the WAN":      {identity.ControlSNI("replicator", east, trustDomain), "unknown_component"},
		"other world":          {"www.example.com", "malformed_name"},
		"no name":              {"", "no_server_name"},
	} {
		t.Run(name, func(t *testing.T) {
			before := r.metric(t, "konsul_gateway_rejected_total", "reason="+c.reason)
			_, err := r.viaMesh(t, &tls.Config{ServerName: c.sni, InsecureSkipVerify: true})
			require.ErrorContains(t, err, "unrecognized name")
			require.InDelta(t, before+1, r.metric(t, "konsul_gateway_rejected_total", "reason="+c.reason), 0)
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		conn, err := net.Dial("tcp", r.mesh)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		require.NoError(t, err)
		answer, _ := io.ReadAll(conn)
		require.Empty(t, answer)
		require.InDelta(t, 1, r.metric(t, "konsul_gateway_rejected_total", "reason=not_tls"), 0)
	})
}

func TestSilentAndSurplusClientsAreCut(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d := newDatacenter(t, ca, east)
	d.instances = []*registryv1.ServiceInstance{echo(t, "one")}
	r := start(t, ca, d, func(c *gateway.Config) {
		c.Gateway.HandshakeTimeout, c.Gateway.MaxConnections = 300*time.Millisecond, 2
		c.Gateway.MaxConnectionsPerSource = 2
	})
	silent, err := net.Dial("tcp", r.mesh)
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	cutOff(t, silent)
	eventually(t, "silence", func() bool { return r.metric(t, "konsul_gateway_rejected_total", "reason=bad_client_hello") > 0 })

	workload := ca.Source(east, "failover-router").ClientTLS(identity.Want{Service: "gateway"}, identity.WorkloadSNI("api", east, trustDomain))
	for range 2 {
		_, err := r.viaMesh(t, workload)
		require.NoError(t, err)
	}
	surplus, err := net.Dial("tcp", r.mesh)
	require.NoError(t, err)
	defer func() { _ = surplus.Close() }()
	cutOff(t, surplus)
	require.InDelta(t, 1, r.metric(t, "konsul_gateway_rejected_total", "reason=too_many_from_source"), 0)
}

// cutOff waits for the far end to end a connection.
func cutOff(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

// crowd opens connections that say nothing and holds them until the test ends.
func crowd(t *testing.T, address string, n int) {
	t.Helper()
	for range n {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
	}
}

func TestASilentCrowdKeepsNobodyOut(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d := newDatacenter(t, ca, east)
	d.instances = []*registryv1.ServiceInstance{echo(t, "one")}
	r := start(t, ca, d, func(c *gateway.Config) {
		c.Gateway.HandshakeTimeout, c.Gateway.MaxConnections = time.Minute, 64
		c.Gateway.MaxHalfOpenPerSource = 8
	})
	crowd(t, r.mesh, 100)
	crowd(t, r.edge, 100)
	conn, err := r.viaMesh(t, ca.Source(east, "failover-router").ClientTLS(
		identity.Want{Service: "gateway"}, identity.WorkloadSNI("api", east, trustDomain)))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, len("one:")))
	require.NoError(t, err)
	for _, h2 := range []bool{false, true} {
		client := r.rest(t, h2)
		require.Equal(t, http.StatusOK, client.do(t, http.MethodGet, "/healthz", nil).status)
		crowd(t, r.edge, 100)
		require.Equal(t, http.StatusOK, client.do(t, http.MethodGet, "/healthz", nil).status)
	}
	eventually(t, "the silent ones are counted", func() bool {
		return r.metric(t, "konsul_gateway_rejected_total", "reason=half_open_evicted") >= 92 &&
			r.metric(t, "konsul_gateway_edge_connections_refused_total", "reason=half_open_evicted") >= 92
	})
	crowd(t, r.mesh, 100)
	_, err = conn.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(t, err, "a connection that has spoken stays")
}

func TestAnInstanceAtTheGatewaysOwnAddressIsRefused(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d := newDatacenter(t, ca, east)
	r := start(t, ca, d)
	for _, own := range []string{r.mesh, r.edge} {
		addr, err := net.ResolveTCPAddr("tcp", own)
		require.NoError(t, err)
		d.mu.Lock()
		d.instances = append(d.instances, &registryv1.ServiceInstance{Service: &registryv1.Service{Id: own, Address: "127.0.0.1", Port: uint32(addr.Port)}})
		d.mu.Unlock()
	}
	conn, err := r.viaMesh(t, ca.Source(east, "failover-router").ClientTLS(
		identity.Want{Service: "gateway"}, identity.WorkloadSNI("api", east, trustDomain)))
	require.NoError(t, err)
	cutOff(t, conn)
	require.InDelta(t, 1, r.metric(t, "konsul_gateway_rejected_total", "reason=own_address"), 0)
}

// echo returns the address of a plaintext service that answers what it hears, after its name.
func echo(t *testing.T, name string) *registryv1.ServiceInstance {
	t.Helper()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = port.Close() })
	go func() {
		for {
			conn, err := port.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = conn.Write([]byte(name + ":"))
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return &registryv1.ServiceInstance{
		Node:    &registryv1.Node{Address: "127.0.0.1"},
		Service: &registryv1.Service{Id: name, Port: uint32(port.Addr().(*net.TCPAddr).Port)},
	}
}

func TestWorkloadsAreReachedByRoutersAndWorkloadsOnly(t *testing.T) {
	ca, dcEast, _, gwEast, gwWest := twoDatacenters(t)
	dcEast.mu.Lock()
	dcEast.instances = []*registryv1.ServiceInstance{
		{Service: &registryv1.Service{Id: "dead", Address: "127.0.0.1", Port: 1}}, echo(t, "one"),
	}
	dcEast.mu.Unlock()
	sni := identity.WorkloadSNI("api", east, trustDomain)
	ask := func(t *testing.T, source identity.Source) (string, error) {
		conn, err := gwWest.viaMesh(t, source.ClientTLS(identity.Want{Datacenter: east, Service: "gateway"}, sni))
		if err != nil {
			return "", err
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			return "", err
		}
		if err := conn.CloseWrite(); err != nil {
			return "", err
		}
		answer, err := io.ReadAll(conn)
		return string(answer), err
	}
	router := ca.Source(west, "failover-router")
	eventually(t, "west reaches the workload", func() bool {
		answer, err := ask(t, router)
		return err == nil && answer == "one:hello"
	})
	for range 10 { // the dead instance is never the answer
		answer, err := ask(t, router)
		require.NoError(t, err)
		require.Equal(t, "one:hello", answer)
	}
	workload := ca.SourceOf(identity.ID{FederationID: identitytest.FederationID, Datacenter: west, Kind: identity.KindWorkload, Service: "web"})
	answer, err := ask(t, workload)
	require.NoError(t, err)
	require.Equal(t, "one:hello", answer)
	require.Positive(t, gwEast.metric(t, "konsul_mesh_gateway_bytes_received", "source_dc="+west, "target_dc="+east),
		"a workload's caller says where it comes from")

	intruders := map[string]identity.Source{
		"another service": ca.Source(west, "replicator"), "another gateway": ca.Source(east, "gateway"),
		"another federation": identitytest.NewCA(t, "22222222-2222-4333-8444-555555555555").Source(west, "failover-router"),
	}
	for name, source := range intruders {
		t.Run(name, func(t *testing.T) {
			before := gwEast.metric(t, "konsul_gateway_rejected_total", "reason=denied")
			config := source.ClientTLS(identity.Want{Any: true}, sni)
			config.VerifyConnection = nil // an intruder is not choosy
			conn, err := gwWest.viaMesh(t, config)
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			require.Error(t, err)
			eventually(t, "counted", func() bool { return gwEast.metric(t, "konsul_gateway_rejected_total", "reason=denied") > before })
		})
	}
}

func TestTheRecordTellsWhatGossipDoesNotAndBothSurviveARestart(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	dcEast, dcWest := newDatacenter(t, ca, east), newDatacenter(t, ca, west)
	gwEast := start(t, ca, dcEast)
	dcWest.members = map[string][]string{east: {gwEast.mesh}, "eu-central": {"127.0.0.1:1"}}
	dir := t.TempDir()
	same := func(c *gateway.Config) { c.Server.DataDir = dir }
	gwWest := start(t, ca, dcWest, same)
	caller := ca.Source(west, "replicator")
	eventually(t, "learnt from the record", func() bool {
		dc, err := federationOf(t, gwWest, caller, east)
		return err == nil && dc == east
	})
	require.FileExists(t, filepath.Join(dir, "gateway", "topology.json"))
	require.NoError(t, gwWest.Stop(t.Context()))

	dcWest.mu.Lock()
	dcWest.down, dcWest.members = errors.New("away"), nil
	dcWest.mu.Unlock()
	again := start(t, ca, dcWest, same, func(c *gateway.Config) { c.Endpoints.WANGossip = []string{"127.0.0.1:1"} })
	dc, err := federationOf(t, again, caller, east)
	require.NoError(t, err)
	require.Equal(t, east, dc)
}

func TestDrainLetsWorkFinishAndThenCuts(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d := newDatacenter(t, ca, east)
	d.instances = []*registryv1.ServiceInstance{echo(t, "one")}
	r := start(t, ca, d, func(c *gateway.Config) { c.Gateway.DrainTimeout = 500 * time.Millisecond })
	conn, err := r.viaMesh(t, ca.Source(east, "failover-router").ClientTLS(
		identity.Want{Service: "gateway"}, identity.WorkloadSNI("api", east, trustDomain)))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, len("one:")))
	require.NoError(t, err)
	require.NoError(t, r.Ready(t.Context()))

	stopped := make(chan error, 1)
	go func() { stopped <- r.Stop(context.Background()) }()
	eventually(t, "not ready", func() bool { return r.Ready(t.Context()) != nil })
	_, err = conn.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(t, err, "an open connection goes on while draining")
	eventually(t, "no new connections", func() bool {
		late, err := net.Dial("tcp", r.mesh)
		if err == nil {
			_ = late.Close()
		}
		return err != nil
	})
	require.NoError(t, <-stopped)
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
}

var _ rpc.TokenChecker = (*datacenter)(nil)
