package ca_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	"konsul.dev/services/ca"
)

func (d *datacenter) secret() []byte {
	d.t.Helper()
	secret, err := identity.ReadSecret(d.cfg.Server.SecretFile, "ca")
	require.NoError(d.t, err)
	return secret
}

func (d *datacenter) key(h identity.Holder) []byte {
	d.t.Helper()
	key, err := identity.DeriveKey(d.secret(), h)
	require.NoError(d.t, err)
	return key
}

// prove asks the ca for an identity with a proof made with any key, over a connection with any
// server name.
func (d *datacenter) prove(serverName string, as identity.Holder, key []byte) error {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Second)
	defer cancel()
	conn, state, err := identity.DialUnverified(ctx, d.cfg.CA.Listen, serverName)
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, conn.Close()) }()
	exporter, err := identity.Exporter(state)
	require.NoError(d.t, err)
	csr := request(d.t)
	_, err = cav1.NewEnrollmentServiceClient(conn).Enroll(ctx, &cav1.EnrollRequest{
		Service: as.Component, Node: as.Node, Datacenter: d.cfg.Server.Datacenter, Csr: csr, Proof: identity.ClientProof(key, exporter, csr),
	})
	return rpc.FromStatus(err)
}

func request(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return csr
}

func TestAKeyGivesExactlyItsIdentity(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	web1 := identity.Holder{Component: "agent", Node: "web-1"}
	for name, c := range map[string]struct {
		as, key identity.Holder
		reason  string
	}{
		"an agent as itself":         {as: web1, key: web1},
		"a gateway as itself":        {as: identity.Holder{Component: "gateway"}, key: identity.Holder{Component: "gateway"}},
		"as another node's agent":    {as: identity.Holder{Component: "agent", Node: "web-2"}, key: web1, reason: "ENROLLMENT_KEY_MISMATCH"},
		"as the agent of any node":   {as: identity.Holder{Component: "agent"}, key: web1, reason: "ENROLLMENT_KEY_MISMATCH"},
		"as registry":                {as: identity.Holder{Component: "registry"}, key: web1, reason: "ENROLLMENT_KEY_MISMATCH"},
		"as gateway":                 {as: identity.Holder{Component: "gateway"}, key: web1, reason: "ENROLLMENT_KEY_MISMATCH"},
		"as wan-gossip":              {as: identity.Holder{Component: "wan-gossip"}, key: web1, reason: "ENROLLMENT_KEY_MISMATCH"},
		"as replicator":              {as: identity.Holder{Component: "replicator"}, key: web1, reason: "ENROLLMENT_KEY_MISMATCH"},
		"as ca":                      {as: identity.Holder{Component: "ca"}, key: web1, reason: "CA_SIGNS_ITSELF"},
		"a gateway as registry":      {as: identity.Holder{Component: "registry"}, key: identity.Holder{Component: "gateway"}, reason: "ENROLLMENT_KEY_MISMATCH"},
		"as ca with the secret":      {as: identity.Holder{Component: "ca"}, key: identity.Holder{Component: "ca"}, reason: "CA_SIGNS_ITSELF"},
		"a gateway of a node":        {as: identity.Holder{Component: "gateway", Node: "x"}, key: identity.Holder{Component: "gateway", Node: "x"}, reason: "INVALID_ARGUMENT"},
		"a workload with the secret": {as: identity.Holder{Component: "api"}, key: identity.Holder{Component: "api"}, reason: "INVALID_ARGUMENT"},
	} {
		t.Run(name, func(t *testing.T) {
			err := dc.prove("", c.as, dc.key(c.key))
			if c.reason == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, c.reason, fault.ReasonOf(err), "%v", err)
		})
	}
}

func TestTheSecretItselfIsNoProof(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	registry := identity.Holder{Component: "registry"}
	err := dc.prove("", registry, dc.secret())
	require.Equal(t, "DATACENTER_SECRET_REFUSED", fault.ReasonOf(err))
	require.ErrorContains(t, err, "ca.accept_datacenter_secret")

	dc.stop()
	dc.cfg.CA.AcceptDatacenterSecret = true
	require.NoError(t, dc.start())
	require.NoError(t, dc.prove("", registry, dc.secret()), "a component of an earlier version, during an upgrade")
	require.Equal(t, "CA_SIGNS_ITSELF", fault.ReasonOf(dc.prove("", identity.Holder{Component: "ca"}, dc.secret())), "nobody is ever the ca")
	require.Equal(t, "ENROLLMENT_KEY_MISMATCH", fault.ReasonOf(dc.prove("", registry, dc.key(identity.Holder{Component: "gateway"}))))
}

func TestThroughAGatewayNobodyEnrolls(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	agent := identity.Holder{Component: "agent", Node: "web-1"}
	federation := dc.service.Identity().ID().FederationID
	sni := identity.ControlSNI("ca", "us-east", identity.TrustDomain(federation))
	for _, name := range []string{sni, strings.ToUpper(sni), identity.WorkloadSNI("ca", "us-east", identity.TrustDomain(federation))} {
		require.Equal(t, "NOT_OVER_WAN", fault.ReasonOf(dc.prove(name, agent, dc.key(agent))), name)
	}
	require.NoError(t, dc.prove("ca.us-east", agent, dc.key(agent)), "by a name of the datacenter's own")

	// Nor does anyone of the datacenter get there what is for the datacenter alone.
	gossip, err := dc.enrollNamed("wan-gossip")
	require.NoError(t, err)
	conn, err := rpc.Dial(dc.cfg.Endpoints.CA, rpc.ClientParams{
		Identity: gossip, Want: identity.Want{Service: "ca"}, ServerName: sni, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = cav1.NewCertificateServiceClient(conn).GetGossipKey(t.Context(), &cav1.GetGossipKeyRequest{})
	require.Equal(t, "NOT_OVER_WAN", fault.ReasonOf(err))
	_, err = cav1.NewCertificateServiceClient(conn).Renew(t.Context(), &cav1.RenewRequest{})
	require.Equal(t, "NOT_OVER_WAN", fault.ReasonOf(err))
	_, err = cav1.NewEnrollmentServiceClient(conn).Join(t.Context(), &cav1.JoinRequest{})
	require.NotEqual(t, "NOT_OVER_WAN", fault.ReasonOf(err), "a datacenter joins this way")
}

func TestAnAgentGetsNothingAboveItself(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	agent := dc.agent("web-1")
	require.Equal(t, "web-1", agent.ID().Node)
	conn, err := rpc.Dial(dc.cfg.Endpoints.CA, rpc.ClientParams{Identity: agent, Want: identity.Want{Service: "ca"}, Telemetry: obs.Discard()})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	client := cav1.NewCertificateServiceClient(conn)

	_, err = client.GetGossipKey(t.Context(), &cav1.GetGossipKeyRequest{})
	require.Equal(t, rpc.ReasonPeerDenied, fault.ReasonOf(err))
	_, err = client.RenewIntermediate(t.Context(), &cav1.RenewIntermediateRequest{Csr: request(t)})
	require.Equal(t, rpc.ReasonPeerDenied, fault.ReasonOf(err))
	_, err = client.CreateJoinToken(t.Context(), &cav1.CreateJoinTokenRequest{Datacenter: "us-west"})
	require.Equal(t, rpc.ReasonPeerDenied, fault.ReasonOf(err))

	resp, err := client.Renew(t.Context(), &cav1.RenewRequest{Csr: request(t)})
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(resp.GetCertificateChain()[0])
	require.NoError(t, err)
	require.Equal(t, agent.ID().String(), leaf.URIs[0].String(), "what is renewed is the caller's identity, with its node")
}

// agent enrolls as the agent of a node, with that node's key alone.
func (d *datacenter) agent(node string) *identity.Enrolled {
	d.t.Helper()
	h := identity.Holder{Component: "agent", Node: node}
	dir := d.t.TempDir()
	file := filepath.Join(dir, "key")
	require.NoError(d.t, os.WriteFile(file, []byte(identity.FormatKey(h, d.key(h))), 0o600))
	ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Second)
	defer cancel()
	enrolled, err := identity.Enroll(ctx, identity.EnrollConfig{
		CAAddrs: d.cfg.Endpoints.CA, Datacenter: d.cfg.Server.Datacenter, Service: "agent", Node: node, SecretFile: file,
		Dir: filepath.Join(dir, "identity"), Log: obs.Discard().Log, Metrics: prometheus.NewRegistry(),
	})
	require.NoError(d.t, err)
	return enrolled
}

func TestTheCANeedsTheSecretItself(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	h := identity.Holder{Component: "gateway"}
	require.NoError(t, os.WriteFile(dc.cfg.Server.SecretFile, []byte(identity.FormatKey(h, dc.key(h))), 0o600))
	require.ErrorContains(t, dc.start(), "holds the key of gateway, and the ca needs the datacenter secret itself")
}

func TestThePrimarysIntermediateIsNotGivenAway(t *testing.T) {
	primary := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, primary.start())
	conn, err := rpc.Dial(primary.cfg.Endpoints.CA, rpc.ClientParams{
		Identity: primary.service.Identity(), Want: identity.Want{Service: "ca"}, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = cav1.NewCertificateServiceClient(conn).RenewIntermediate(t.Context(), &cav1.RenewIntermediateRequest{Csr: request(t)})
	require.Equal(t, "CA_SIGNS_ITSELF", fault.ReasonOf(err), "not even with the identity of its own ca")
}

func TestAReplacedSecretSealsTheStateAnew(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	federation, registry := dc.service.Identity().ID().FederationID, identity.Holder{Component: "registry"}
	oldKey := dc.key(registry)
	id, err := identity.DatacenterID(dc.secret(), "us-east")
	require.NoError(t, err)
	dc.stop()

	old := dc.cfg.Server.SecretFile
	dc.cfg.Server.SecretFile = filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(dc.cfg.Server.SecretFile, []byte(identity.NewSecret()), 0o600))
	require.Equal(t, "CA_STATE_SEALED", fault.ReasonOf(dc.start()))

	dc.cfg.CA.PreviousSecretFile = filepath.Join(t.TempDir(), "none")
	require.ErrorContains(t, dc.start(), "ca.previous_secret_file")
	dc.cfg.CA.PreviousSecretFile = old
	require.NoError(t, dc.start())
	dc.stop()
	dc.cfg.CA.PreviousSecretFile = ""
	require.NoError(t, dc.start(), "the state is sealed with the new secret")
	require.Equal(t, federation, dc.service.Identity().ID().FederationID)
	require.Equal(t, "ENROLLMENT_KEY_MISMATCH", fault.ReasonOf(dc.prove("", registry, oldKey)), "what was derived from the old one proves nothing")
	require.NoError(t, dc.prove("", registry, dc.key(registry)))

	gossip, err := dc.enrollNamed("wan-gossip")
	require.NoError(t, err)
	conn, err := rpc.Dial(dc.cfg.Endpoints.CA, rpc.ClientParams{Identity: gossip, Want: identity.Want{Service: "ca"}, Telemetry: obs.Discard()})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	resp, err := cav1.NewCertificateServiceClient(conn).GetGossipKey(t.Context(), &cav1.GetGossipKeyRequest{})
	require.NoError(t, err)
	require.Equal(t, id, resp.GetDatacenterId(), "the datacenter stays who it is")
}

// lines is a log in memory.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// audit returns the audit lines so far.
func (l *lines) audit(t *testing.T) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(l.all()) {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &m))
		if m["msg"] == "audit" {
			out = append(out, m)
		}
	}
	return out
}

func (l *lines) telemetry() *obs.Telemetry {
	telemetry := *obs.Discard()
	telemetry.Log = slog.New(slog.NewJSONHandler(l, nil))
	return &telemetry
}

func TestWhatIsHandedOutAndRefusedIsWrittenDown(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	log := &lines{}
	service, err := ca.New(dc.cfg, konsulfx.Process{Telemetry: log.telemetry(), Clock: clock.System(), Fail: func(err error) { t.Errorf("loop failed: %v", err) }})
	require.NoError(t, err)
	require.NoError(t, service.Start(t.Context()))
	dc.service = service
	t.Cleanup(dc.stop)

	agent := dc.agent("web-1")
	last := func() map[string]any {
		t.Helper()
		all := log.audit(t)
		require.NotEmpty(t, all)
		return all[len(all)-1]
	}
	require.Subset(t, last(), map[string]any{
		"decision": "allowed", "method": cav1.EnrollmentService_Enroll_FullMethodName, "component": "agent", "node": "web-1",
		"serial": agent.Material().Chain[0].SerialNumber.Text(16),
	})
	require.Contains(t, last()["address"], "127.0.0.1:")

	gossip, err := dc.enrollNamed("wan-gossip")
	require.NoError(t, err)
	for _, source := range []identity.Source{gossip, agent} {
		conn, err := rpc.Dial(dc.cfg.Endpoints.CA, rpc.ClientParams{Identity: source, Want: identity.Want{Service: "ca"}, Telemetry: obs.Discard()})
		require.NoError(t, err)
		resp, err := cav1.NewCertificateServiceClient(conn).GetGossipKey(t.Context(), &cav1.GetGossipKeyRequest{})
		if source == identity.Source(gossip) {
			require.NoError(t, err)
			id, err := identity.DatacenterID(dc.secret(), "us-east")
			require.NoError(t, err)
			require.True(t, proto.Equal(&cav1.GetGossipKeyResponse{Keys: resp.GetKeys(), DatacenterId: id}, resp))
			require.Subset(t, last(), map[string]any{"decision": "allowed", "method": cav1.CertificateService_GetGossipKey_FullMethodName, "peer": gossip.ID().String()})
		} else {
			require.Error(t, err)
			require.Subset(t, last(), map[string]any{"decision": "denied", "reason": rpc.ReasonPeerDenied, "peer": agent.ID().String()})
		}
		require.NoError(t, conn.Close())
	}

	require.Error(t, dc.prove("", identity.Holder{Component: "registry"}, make([]byte, 32)))
	require.Subset(t, last(), map[string]any{"decision": "denied", "reason": "ENROLLMENT_KEY_MISMATCH", "method": cav1.EnrollmentService_Enroll_FullMethodName})
	require.NotContains(t, log.all(), "konsul-key:")
	require.NotContains(t, log.all(), base64.StdEncoding.EncodeToString(dc.secret()))
}
