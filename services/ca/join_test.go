package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
)

func (d *datacenter) files() []string {
	d.t.Helper()
	entries, err := os.ReadDir(filepath.Join(d.cfg.Server.DataDir, "ca"))
	if !os.IsNotExist(err) {
		require.NoError(d.t, err)
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestALostAnswerDoesNotCostTheToken(t *testing.T) {
	primary := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, primary.start())
	store := primary.withRegistry()
	<-store.roots
	text := primary.token("us-west", time.Hour)

	store.mu.Lock()
	store.loseAnswer = 1 << 20
	store.mu.Unlock()
	west := newDatacenter(t, "us-west", "us-east").useToken(text)
	west.cfg.CA.JoinTimeout = time.Second
	require.Equal(t, "PRIMARY_UNREACHABLE", fault.ReasonOf(west.start()))
	require.Equal(t, []string{"join.sealed"}, west.files(), "the question is kept, to be asked again")

	store.mu.Lock()
	require.Len(t, store.requests, 1, "every try is the same request")
	id, err := identity.DatacenterID(west.secret(), "us-west")
	require.NoError(t, err)
	for _, applied := range store.requests {
		require.Equal(t, id, applied, "the id is the one the datacenter's registry and gossip use")
	}
	store.loseAnswer = 0
	store.mu.Unlock()

	thief := newDatacenter(t, "us-west", "us-east").useToken(text)
	require.Equal(t, "JOIN_TOKEN_USED", fault.ReasonOf(thief.start()), "the token alone is not enough")
	require.Empty(t, thief.files(), "a refusal leaves nothing")

	require.NoError(t, west.start(), "the same datacenter is let in after a restart")
	require.ElementsMatch(t, []string{"ca.sealed", "roots.pem"}, west.files())
}

func TestAPrimaryDoesNotFoundWhatItWasToldToJoin(t *testing.T) {
	primary := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, primary.start())
	<-primary.withRegistry().roots
	text := primary.token("us-west", time.Hour)

	// server.primary_datacenter was forgotten, so it is the own name.
	founder := newDatacenter(t, "us-west", "us-west").useToken(text)
	err := founder.start()
	require.ErrorContains(t, err, "server.primary_datacenter")
	require.Empty(t, founder.files())

	elsewhere := newDatacenter(t, "us-west", "eu-central").useToken(text)
	require.ErrorContains(t, elsewhere.start(), "us-east")
	require.Empty(t, elsewhere.files())
}

func TestIntermediatesRenewThroughThePrimary(t *testing.T) {
	primary := newDatacenter(t, "us-east", "us-east")
	// Due at birth, as the minute allowed for clock skew is more than two thirds of its life.
	primary.cfg.CA.LeafTTL, primary.cfg.CA.IntermediateTTL = 10*time.Second, 20*time.Second
	require.NoError(t, primary.start())
	<-primary.withRegistry().roots
	west := newDatacenter(t, "us-west", "us-east").useToken(primary.token("us-west", time.Hour))
	west.cfg.Endpoints.Gateway = []string{primary.cfg.CA.Listen}
	west.cfg.CA.LeafTTL = 5 * time.Second
	require.NoError(t, west.start())

	serial := func() string {
		source, ok := west.service.Identity().(*identity.Rotating)
		require.True(t, ok)
		return source.Material().Chain[1].SerialNumber.String()
	}
	first := serial()
	require.Eventually(t, func() bool { return serial() != first }, 10*time.Second, 20*time.Millisecond)

	// With the primary gone, the datacenter goes on signing for itself.
	primary.stop()
	source, ok := west.service.Identity().(*identity.Rotating)
	require.True(t, ok)
	leaf := source.Material().Chain[0].SerialNumber
	require.Eventually(t, func() bool { return source.Material().Chain[0].SerialNumber.Cmp(leaf) != 0 }, 15*time.Second, 20*time.Millisecond)
	_, err := west.enrollNamed("agent")
	require.NoError(t, err)
}

func TestARenewalThatIsDueAtBirthDoesNotSpin(t *testing.T) {
	dc := newDatacenter(t, "us-east", "us-east")
	dc.cfg.CA.LeafTTL = 5 * time.Second
	require.NoError(t, dc.start())
	source, ok := dc.service.Identity().(*identity.Rotating)
	require.True(t, ok)
	seen := map[string]bool{}
	require.Never(t, func() bool {
		seen[source.Material().Chain[0].SerialNumber.String()] = true
		return len(seen) > 4
	}, time.Second, time.Millisecond)
}

func TestAnImpostorOnTheWayGetsNothingAndSpoilsNothing(t *testing.T) {
	primary := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, primary.start())
	<-primary.withRegistry().roots
	text := primary.token("us-west", time.Hour)
	gateways := primary.cfg.CA.Listen
	primary.stop()

	// Another federation with the same names answers where the primary did.
	impostor := newDatacenter(t, "us-east", "us-east")
	impostor.cfg.CA.Listen = gateways
	require.NoError(t, impostor.start())
	west := newDatacenter(t, "us-west", "us-east").useToken(text)
	require.ErrorContains(t, west.start(), "the token pins")
	require.Equal(t, []string{"join.sealed"}, west.files())

	impostor.stop()
	require.NoError(t, primary.start())
	require.NoError(t, west.start())
}

func TestOnlyThePrimaryAdmitsDatacenters(t *testing.T) {
	primary := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, primary.start())
	<-primary.withRegistry().roots
	west := newDatacenter(t, "us-west", "us-east").useToken(primary.token("us-west", time.Hour))
	require.NoError(t, west.start())

	refused := func(err error) {
		f, ok := fault.As(rpc.FromStatus(err))
		require.True(t, ok)
		require.Equal(t, fault.FailedPrecondition, f.Code())
		require.Equal(t, "NOT_PRIMARY", f.Reason())
		require.Equal(t, "us-east", f.Meta()["primary_datacenter"])
	}
	gateway, err := west.enrollNamed("gateway")
	require.NoError(t, err)
	conn, err := rpc.Dial(west.cfg.Endpoints.CA, rpc.ClientParams{Identity: gateway, Want: identity.Want{Service: "ca"}, Telemetry: obs.Discard()})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = cav1.NewCertificateServiceClient(conn).CreateJoinToken(t.Context(), &cav1.CreateJoinTokenRequest{Datacenter: "ap-south"})
	refused(err)
	_, err = cav1.NewEnrollmentServiceClient(conn).Join(t.Context(), &cav1.JoinRequest{})
	refused(err)
}

func TestAnIntermediateIsRenewedForTheCallersDatacenterOnly(t *testing.T) {
	primary := newDatacenter(t, "us-east", "us-east")
	require.NoError(t, primary.start())
	<-primary.withRegistry().roots
	west := newDatacenter(t, "us-west", "us-east").useToken(primary.token("us-west", time.Hour))
	require.NoError(t, west.start())

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		URIs: []*url.URL{{Scheme: "spiffe", Host: "x.konsul", Path: "/dc/us-east"}},
	}, key)
	require.NoError(t, err)
	ask := func(source identity.Source) (*cav1.RenewIntermediateResponse, error) {
		conn, err := rpc.Dial(primary.cfg.Endpoints.CA, rpc.ClientParams{
			Identity: source, Want: identity.Want{Datacenter: "us-east", Service: "ca"}, Telemetry: obs.Discard(),
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		return cav1.NewCertificateServiceClient(conn).RenewIntermediate(t.Context(), &cav1.RenewIntermediateRequest{Csr: csr})
	}
	resp, err := ask(west.service.Identity())
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(resp.GetIntermediate())
	require.NoError(t, err)
	require.Len(t, cert.URIs, 1)
	require.Equal(t, "/dc/us-west", cert.URIs[0].Path, "what the request asks for does not matter")

	registry, err := west.enrollNamed("registry")
	require.NoError(t, err)
	_, err = ask(registry)
	require.Equal(t, fault.PermissionDenied, fault.CodeOf(err), "only a ca may ask")
}
