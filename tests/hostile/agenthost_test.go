package hostile

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/hostile/attack"
)

// agentHost is what was found on a host with the agent of node web-1: its key, and the addresses of
// its datacenter.
type agentHost struct {
	t    *testing.T
	dc   *attack.Datacenter
	file string
	key  []byte
}

func breakIn(t *testing.T, dc *attack.Datacenter) agentHost {
	t.Helper()
	secret, err := identity.ReadSecret(filepath.Join(dc.Dir, "secret"), "operator")
	require.NoError(t, err)
	web1 := identity.Holder{Component: "agent", Node: "web-1"}
	h := agentHost{t: t, dc: dc, file: filepath.Join(t.TempDir(), "key")}
	h.key, err = identity.DeriveKey(secret, web1)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(h.file, []byte(identity.FormatKey(web1, h.key)), 0o600))
	return h
}

func (h agentHost) address(port string) string { return net.JoinHostPort(h.dc.Host, port) }

// agent enrolls as what the host is.
func (h agentHost) agent() *identity.Enrolled {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
	defer cancel()
	agent, err := identity.Enroll(ctx, identity.EnrollConfig{
		CAAddrs: []string{h.address("8532")}, Datacenter: "us-east", Service: "agent", Node: "web-1", SecretFile: h.file,
		Dir: filepath.Join(h.t.TempDir(), "identity"), Log: obs.Discard().Log, Metrics: prometheus.NewRegistry(),
	})
	require.NoError(h.t, err)
	return agent
}

// enroll asks for an identity with the host's key, at an address and by a server name, and returns
// the refusal.
func (h agentHost) enroll(address, serverName, service, node string) error {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
	defer cancel()
	conn, state, err := identity.DialUnverified(ctx, address, serverName)
	if err != nil {
		return err
	}
	defer func() { require.NoError(h.t, conn.Close()) }()
	exporter, err := identity.Exporter(state)
	require.NoError(h.t, err)
	csr := h.request()
	_, err = cav1.NewEnrollmentServiceClient(conn).Enroll(ctx, &cav1.EnrollRequest{
		Service: service, Node: node, Datacenter: "us-east", Csr: csr, Proof: identity.ClientProof(h.key, exporter, csr),
	})
	return rpc.FromStatus(err)
}

func (h agentHost) request() []byte {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(h.t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(h.t, err)
	return csr
}

func (h agentHost) dial(agent identity.Source, port, service, serverName string) *grpc.ClientConn {
	h.t.Helper()
	conn, err := rpc.Dial([]string{h.address(port)}, rpc.ClientParams{
		Identity: agent, Want: identity.Want{Service: service}, ServerName: serverName, Telemetry: obs.Discard(),
	})
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestAnAgentsHostIsNotTheDatacenter tries with an agent host's files what the datacenter secret
// once allowed.
func TestAnAgentsHostIsNotTheDatacenter(t *testing.T) {
	h := breakIn(t, attack.Start(t, attack.Options{}))
	agent := h.agent()
	domain := identity.TrustDomain(agent.ID().FederationID)
	throughGateway := identity.ControlSNI("ca", "us-east", domain)

	for name, c := range map[string]struct{ port, serverName, service, node, reason string }{
		"as ca":                            {"8532", "", "ca", "", "CA_SIGNS_ITSELF"},
		"as registry":                      {"8532", "", "registry", "", "ENROLLMENT_KEY_MISMATCH"},
		"as gateway":                       {"8532", "", "gateway", "", "ENROLLMENT_KEY_MISMATCH"},
		"as wan-gossip":                    {"8532", "", "wan-gossip", "", "ENROLLMENT_KEY_MISMATCH"},
		"as replicator":                    {"8532", "", "replicator", "", "ENROLLMENT_KEY_MISMATCH"},
		"as failover-router":               {"8532", "", "failover-router", "", "ENROLLMENT_KEY_MISMATCH"},
		"as another node's agent":          {"8532", "", "agent", "web-2", "ENROLLMENT_KEY_MISMATCH"},
		"as any node's agent":              {"8532", "", "agent", "", "ENROLLMENT_KEY_MISMATCH"},
		"as itself, through a gateway":     {"8443", throughGateway, "agent", "web-1", "NOT_OVER_WAN"},
		"as itself, in upper case":         {"8443", strings.ToUpper(throughGateway), "agent", "web-1", "NOT_OVER_WAN"},
		"as registry, through a gateway":   {"8443", throughGateway, "registry", "", "NOT_OVER_WAN"},
		"as itself, by a gateway's name":   {"8532", throughGateway, "agent", "web-1", "NOT_OVER_WAN"},
		"through a gateway without a name": {"8443", "", "agent", "web-1", ""},
		"through a gateway by its host":    {"8443", "ca.us-east", "agent", "web-1", ""},
	} {
		t.Run("enroll "+name, func(t *testing.T) {
			err := h.enroll(h.address(c.port), c.serverName, c.service, c.node)
			require.Error(t, err)
			if c.reason != "" {
				require.Equal(t, c.reason, fault.ReasonOf(err), "%v", err)
			}
		})
	}

	ca := cav1.NewCertificateServiceClient(h.dial(agent, "8532", "ca", ""))
	registry := h.dial(agent, "8502", "registry", "")
	farRegistry := h.dial(agent, "8443", "registry", identity.ControlSNI("registry", "us-east", domain))
	for name, call := range map[string]func(context.Context) error{
		"gossip key": func(ctx context.Context) error {
			_, err := ca.GetGossipKey(ctx, &cav1.GetGossipKeyRequest{})
			return err
		},
		"intermediate": func(ctx context.Context) error {
			_, err := ca.RenewIntermediate(ctx, &cav1.RenewIntermediateRequest{Csr: h.request()})
			return err
		},
		"join token": func(ctx context.Context) error {
			_, err := ca.CreateJoinToken(ctx, &cav1.CreateJoinTokenRequest{Datacenter: "us-west"})
			return err
		},
		"propose": func(ctx context.Context) error {
			_, err := registryv1.NewProposalServiceClient(registry).Propose(ctx, &registryv1.ProposeRequest{})
			return err
		},
		"propose, through a gateway": func(ctx context.Context) error {
			_, err := registryv1.NewProposalServiceClient(farRegistry).Propose(ctx, &registryv1.ProposeRequest{})
			return err
		},
		"apply as replicated": func(ctx context.Context) error {
			_, err := federationv1.NewReplicationServiceClient(registry).ApplyReplicated(ctx, &federationv1.ApplyReplicatedRequest{})
			return err
		},
		"admit a datacenter": func(ctx context.Context) error {
			_, err := registryv1.NewTrustServiceClient(registry).AdmitDatacenter(ctx, &registryv1.AdmitDatacenterRequest{})
			return err
		},
		"a token": func(ctx context.Context) error {
			_, err := registryv1.NewACLServiceClient(registry).CreateToken(ctx, &registryv1.CreateTokenRequest{})
			return err
		},
		"the first token": func(ctx context.Context) error {
			_, err := registryv1.NewACLServiceClient(registry).Bootstrap(ctx, &registryv1.BootstrapRequest{})
			return err
		},
		"every key, by a watch": func(ctx context.Context) error {
			stream, err := registryv1.NewWatchServiceClient(registry).Watch(ctx, &registryv1.WatchRequest{Table: registryv1.Table_TABLE_KV})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"a key": func(ctx context.Context) error {
			_, err := registryv1.NewKVServiceClient(registry).Get(ctx, &registryv1.GetRequest{Key: "a"})
			return err
		},
	} {
		t.Run("have "+name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			require.Equal(t, rpc.ReasonPeerDenied, fault.ReasonOf(call(ctx)))
		})
	}

	log, err := os.ReadFile(filepath.Join(h.dc.Dir, "ca.log"))
	require.NoError(t, err)
	require.Regexp(t, `msg=audit .*decision=allowed method=/konsul.ca.v1.EnrollmentService/Enroll .*component=agent node=web-1`, string(log))
	require.Regexp(t, `msg=audit .*decision=denied .*reason=NOT_OVER_WAN`, string(log))
}
