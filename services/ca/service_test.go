package ca_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/fx/fxtest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/konsultest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/ca"
)

// datacenter is a ca on loopback with what it needs on disk.
type datacenter struct {
	t       *testing.T
	cfg     ca.Config
	service *ca.Service
}

func newDatacenter(t *testing.T, name, primary string) *datacenter {
	t.Helper()
	dir := t.TempDir()
	cfg := ca.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter, cfg.Server.DataDir = name, primary, dir
	cfg.Server.SecretFile = filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(cfg.Server.SecretFile, []byte(identity.NewSecret()), 0o600))
	cfg.CA.Listen = konsultest.FreeAddress(t)
	cfg.Endpoints.CA = []string{cfg.CA.Listen}
	cfg.Endpoints.Registry = []string{konsultest.FreeAddress(t)}
	// With no gateway in between, the primary's ca is reached directly.
	cfg.CA.PrimaryGateways = []string{cfg.CA.Listen}
	cfg.CA.JoinTimeout = 2 * time.Second
	cfg.Normalize()
	require.NoError(t, cfg.Validate())
	return &datacenter{t: t, cfg: cfg}
}

func (d *datacenter) start() error {
	service, err := ca.New(d.cfg, konsulfx.Process{Telemetry: obs.Discard(), Clock: clock.System(), Fail: func(err error) { d.t.Errorf("loop failed: %v", err) }})
	if err != nil {
		return err
	}
	if err := service.Start(d.t.Context()); err != nil {
		return err
	}
	d.service = service
	d.t.Cleanup(d.stop)
	return nil
}

func (d *datacenter) stop() {
	if d.service != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(d.t, d.service.Stop(ctx))
		d.service = nil
	}
}

func (d *datacenter) enroll(service, secretFile string) (*identity.Enrolled, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Second)
	defer cancel()
	return identity.Enroll(ctx, identity.EnrollConfig{
		CAAddrs: d.cfg.Endpoints.CA, Datacenter: d.cfg.Server.Datacenter, Service: service, SecretFile: secretFile,
		Dir: filepath.Join(d.t.TempDir(), service), Log: obs.Discard().Log, Metrics: prometheus.NewRegistry(),
		DNSNames: []string{"gateway.example.com"},
	})
}

// trust is the registry's side, in memory.
type trust struct {
	registryv1.UnimplementedTrustServiceServer

	mu       sync.Mutex
	tokens   map[string]*registryv1.JoinToken
	requests map[string]string // datacenter by request id
	// loseAnswer is how many admissions are committed but answered with a broken connection.
	loseAnswer int
	roots      chan *registryv1.PublishRootsRequest
}

func (s *trust) PutJoinToken(_ context.Context, r *registryv1.PutJoinTokenRequest) (*registryv1.PutJoinTokenResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[r.GetToken().GetId()] = r.GetToken()
	return &registryv1.PutJoinTokenResponse{}, nil
}

func (s *trust) GetJoinToken(_ context.Context, r *registryv1.GetJoinTokenRequest) (*registryv1.GetJoinTokenResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token, ok := s.tokens[r.GetId()]
	if !ok {
		return nil, fault.New(fault.NotFound, "JOIN_TOKEN_NOT_FOUND", "none")
	}
	return &registryv1.GetJoinTokenResponse{Token: token}, nil
}

func (s *trust) AdmitDatacenter(_ context.Context, r *registryv1.AdmitDatacenterRequest) (*registryv1.AdmitDatacenterResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := s.tokens[r.GetTokenId()]
	if _, repeated := s.requests[r.GetRequestId()]; token.GetUsedAt() != nil && !repeated {
		return nil, fault.New(fault.FailedPrecondition, "JOIN_TOKEN_USED", "the join token has been used")
	}
	token.UsedAt, s.requests[r.GetRequestId()] = timestamppb.Now(), r.GetDatacenter().GetId()
	if s.loseAnswer > 0 {
		s.loseAnswer--
		return nil, fault.New(fault.Unavailable, "LOST", "the answer is lost")
	}
	return &registryv1.AdmitDatacenterResponse{}, nil
}

func (s *trust) PublishRoots(_ context.Context, r *registryv1.PublishRootsRequest) (*registryv1.PublishRootsResponse, error) {
	s.roots <- r
	return &registryv1.PublishRootsResponse{}, nil
}

// withRegistry serves TrustService where the ca looks for the registry.
func (d *datacenter) withRegistry() *trust {
	d.t.Helper()
	source, err := d.enrollNamed("registry")
	require.NoError(d.t, err)
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "registry", Identity: source, Telemetry: obs.Discard(),
	})
	require.NoError(d.t, err)
	store := &trust{tokens: map[string]*registryv1.JoinToken{}, requests: map[string]string{}, roots: make(chan *registryv1.PublishRootsRequest, 1)}
	registryv1.RegisterTrustServiceServer(server, store)
	listener, err := net.Listen("tcp", d.cfg.Endpoints.Registry[0])
	require.NoError(d.t, err)
	go func() { _ = server.Serve(listener) }()
	d.t.Cleanup(server.Stop)
	return store
}

func (d *datacenter) enrollNamed(service string) (*identity.Enrolled, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Second)
	defer cancel()
	return identity.Enroll(ctx, identity.EnrollConfig{
		CAAddrs: d.cfg.Endpoints.CA, Datacenter: d.cfg.Server.Datacenter, Service: service, SecretFile: d.cfg.Server.SecretFile,
		Dir: filepath.Join(d.cfg.Server.DataDir, service), Log: obs.Discard().Log, Metrics: prometheus.NewRegistry(),
	})
}

// token has the primary make a join token, as its gateway would ask.
func (d *datacenter) token(name string, ttl time.Duration) string {
	d.t.Helper()
	gateway, err := d.enrollNamed("gateway")
	require.NoError(d.t, err)
	conn, err := rpc.Dial(d.cfg.Endpoints.CA, rpc.ClientParams{Identity: gateway, Want: identity.Want{Service: "ca"}, Telemetry: obs.Discard()})
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, conn.Close()) }()
	resp, err := cav1.NewCertificateServiceClient(conn).CreateJoinToken(d.t.Context(), &cav1.CreateJoinTokenRequest{Datacenter: name, Ttl: durationpb.New(ttl)})
	require.NoError(d.t, err)
	return resp.GetToken()
}

func (d *datacenter) useToken(text string) *datacenter {
	d.t.Helper()
	d.cfg.CA.JoinTokenFile = filepath.Join(d.cfg.Server.DataDir, "token")
	require.NoError(d.t, os.WriteFile(d.cfg.CA.JoinTokenFile, []byte(text), 0o600))
	return d
}

func TestServicesProveTheSecretAndGetTheirOwnIdentity(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())

	registry, err := dc.enrollNamed("registry")
	require.NoError(t, err)
	require.Equal(t, "us-east", registry.ID().Datacenter)
	require.Empty(t, registry.Material().Chain[0].DNSNames)

	_, err = dc.enrollNamed("intruder")
	require.Equal(t, "ENROLLMENT_REFUSED", fault.ReasonOf(err))

	gateway, err := dc.enroll("gateway", dc.cfg.Server.SecretFile)
	require.NoError(t, err)
	require.Equal(t, []string{"gateway.example.com"}, gateway.Material().Chain[0].DNSNames, "people verify the gateway by name")

	wrong := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(wrong, []byte(identity.NewSecret()), 0o600))
	_, err = dc.enroll("registry", wrong)
	require.ErrorContains(t, err, "server.secret_file")
}

func TestAProofIsWorthNothingOnAnotherConnection(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	key, err := identity.DeriveKey(dc.secret(), identity.Holder{Component: "registry"})
	require.NoError(t, err)

	// Someone in the middle ends one TLS connection and relays what it heard over another.
	victim, state, err := identity.DialUnverified(t.Context(), dc.cfg.CA.Listen, "")
	require.NoError(t, err)
	defer func() { require.NoError(t, victim.Close()) }()
	_, err = cav1.NewCertificateServiceClient(victim).Renew(t.Context(), &cav1.RenewRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	exporter, err := identity.Exporter(state)
	require.NoError(t, err)
	relay, _, err := identity.DialUnverified(t.Context(), dc.cfg.CA.Listen, "")
	require.NoError(t, err)
	defer func() { require.NoError(t, relay.Close()) }()

	csr := []byte("any request")
	_, err = cav1.NewEnrollmentServiceClient(relay).Enroll(t.Context(), &cav1.EnrollRequest{
		Service: "registry", Datacenter: "us-east", Csr: csr, Proof: identity.ClientProof(key, exporter, csr),
	})
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
}

func TestWithoutACertificateOnlyEnrollmentIsOpen(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	conn, _, err := identity.DialUnverified(t.Context(), dc.cfg.CA.Listen, "")
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = cav1.NewCertificateServiceClient(conn).GetGossipKey(t.Context(), &cav1.GetGossipKeyRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	_, err = cav1.NewCertificateServiceClient(conn).Renew(t.Context(), &cav1.RenewRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}

func TestAJoinTokenAdmitsOneDatacenterOnce(t *testing.T) {
	primary := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, primary.start())
	store := primary.withRegistry()
	require.Len(t, (<-store.roots).GetRoots(), 1, "the roots reach the registry")

	text := primary.token("us-west", time.Hour)
	west := newDatacenter(t, "us-west", "us-east").useToken(text)
	require.NoError(t, west.start())
	east, err := primary.enrollNamed("registry")
	require.NoError(t, err)
	peer, err := west.enrollNamed("registry")
	require.NoError(t, err)
	require.Equal(t, east.ID().FederationID, peer.ID().FederationID)
	handshake(t, east, peer)

	west.stop()
	require.NoError(t, os.Remove(west.cfg.CA.JoinTokenFile))
	require.NoError(t, west.start(), "later starts need no token")

	again := newDatacenter(t, "us-west", "us-east").useToken(text)
	require.Equal(t, "JOIN_TOKEN_USED", fault.ReasonOf(again.start()))
	require.NoFileExists(t, filepath.Join(again.cfg.Server.DataDir, "ca", "ca.sealed"), "a refusal leaves nothing")

	other := newDatacenter(t, "eu-central", "us-east").useToken(primary.token("ap-south", time.Hour))
	require.Equal(t, "JOIN_TOKEN_FOR_ANOTHER", fault.ReasonOf(other.start()))

	expired := newDatacenter(t, "ap-south", "us-east").useToken(primary.token("ap-south", time.Nanosecond))
	require.Equal(t, "JOIN_TOKEN_EXPIRED", fault.ReasonOf(expired.start()))

	late := newDatacenter(t, "ap-south", "us-east").useToken(primary.token("ap-south", time.Hour))
	primary.stop()
	err = late.start()
	require.Equal(t, "PRIMARY_UNREACHABLE", fault.ReasonOf(err))
	require.ErrorContains(t, err, "us-east")

	require.ErrorContains(t, newDatacenter(t, "ap-south", "us-east").start(), "ca.join_token_file")
}

// handshake fails unless the two believe each other.
func handshake(t *testing.T, server, client identity.Source) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(a, server.ServerTLS(identity.ServerOptions{}))
		_, err := conn.Write([]byte("x"))
		done <- err
	}()
	_, err := tls.Client(b, client.ClientTLS(identity.Want{Datacenter: server.ID().Datacenter, Service: server.ID().Service}, "x")).Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, <-done)
}

func TestTheSealedStateOpensOnlyWithItsSecret(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	before, err := dc.enrollNamed("registry")
	require.NoError(t, err)
	dc.stop()
	path := filepath.Join(dc.cfg.Server.DataDir, "ca", "ca.sealed")
	sealed, err := os.ReadFile(path)
	require.NoError(t, err)

	secret, err := os.ReadFile(dc.cfg.Server.SecretFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(dc.cfg.Server.SecretFile, []byte(identity.NewSecret()), 0o600))
	require.ErrorContains(t, dc.start(), "server.secret_file")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, sealed, after, "nothing changed")

	require.NoError(t, os.WriteFile(dc.cfg.Server.SecretFile, secret, 0o600))
	damaged := append([]byte{}, sealed...)
	damaged[len(damaged)/2] ^= 1
	require.NoError(t, os.WriteFile(path, damaged, 0o600))
	require.Equal(t, "CA_STATE_SEALED", fault.ReasonOf(dc.start()))

	require.NoError(t, os.WriteFile(path, sealed, 0o600))
	require.NoError(t, dc.start())
	require.Equal(t, before.ID().FederationID, dc.service.Identity().ID().FederationID, "the federation id is immutable")
}

func TestAnEnrolledIdentitySurvivesARestartWithoutTheCA(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, dc.start())
	first, err := dc.enrollNamed("registry")
	require.NoError(t, err)
	dc.stop()
	second, err := dc.enrollNamed("registry")
	require.NoError(t, err)
	require.Equal(t, first.Material().Chain[0].Raw, second.Material().Chain[0].Raw)
}

func TestLeavesRenewWhileInUse(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	// With a minute allowed for clock skew, two thirds of this life have passed at birth.
	dc.cfg.CA.LeafTTL = 5 * time.Second
	require.NoError(t, dc.start())
	registry, err := dc.enrollNamed("registry")
	require.NoError(t, err)
	first := registry.Material().Chain[0].SerialNumber
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- registry.Run(ctx) }()
	require.Eventually(t, func() bool { return registry.Material().Chain[0].SerialNumber.Cmp(first) != 0 }, 10*time.Second, 10*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	handshake(t, dc.service.Identity(), registry)
}

func TestGraph(t *testing.T) {
	cfg := newDatacenter(t, "us-east", "us-east").cfg
	app := fxtest.New(t, konsulfx.Base("konsul-ca", cfg.Base), ca.Module(cfg))
	app.RequireStart().RequireStop()
}
