package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/ca/internal/policy"
)

func request(t *testing.T, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		DNSNames: []string{"gw.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, key)
	require.NoError(t, err)
	return der
}

func TestOnlyP256RequestsSignedByTheirKeyPass(t *testing.T) {
	_, err := policy.ParseRequest(request(t, elliptic.P256()))
	require.NoError(t, err)
	_, err = policy.ParseRequest(request(t, elliptic.P384()))
	require.ErrorContains(t, err, "P-256")
	damaged := request(t, elliptic.P256())
	damaged[len(damaged)-1] ^= 1
	_, err = policy.ParseRequest(damaged)
	require.Error(t, err)
	_, err = policy.ParseRequest([]byte("hello"))
	require.ErrorContains(t, err, "csr")
}

func TestHostNamesAreForTheGatewayOnly(t *testing.T) {
	csr, err := policy.ParseRequest(request(t, elliptic.P256()))
	require.NoError(t, err)
	names, ips := policy.HostNames("gateway", csr)
	require.Equal(t, []string{"gw.example.com"}, names)
	require.Len(t, ips, 1)
	names, ips = policy.HostNames("registry", csr)
	require.Empty(t, names)
	require.Empty(t, ips)
}

func TestOnlyComponentsGetAnIdentity(t *testing.T) {
	for name, c := range map[string]struct{ service, node, wantErr string }{
		"a component":               {service: "wan-gossip"},
		"an agent of a node":        {service: "agent", node: "web-1.example"},
		"an agent of any node":      {service: "agent"},
		"a workload":                {service: "payment-api", wantErr: "no konsul service"},
		"nothing":                   {wantErr: "no konsul service"},
		"a name without end":        {service: strings.Repeat("x", 1<<20), wantErr: "no konsul service"},
		"a node without end":        {service: "agent", node: strings.Repeat("x", 1<<20), wantErr: "cannot stand"},
		"the ca":                    {service: "ca", wantErr: "signs its own"},
		"a gateway of a node":       {service: "gateway", node: "web-1", wantErr: "is for agents"},
		"a node that is a path":     {service: "agent", node: "web/1", wantErr: "cannot stand"},
		"a node that goes upwards":  {service: "agent", node: "..", wantErr: "cannot stand"},
		"a node that is an address": {service: "agent", node: "2001:db8::1", wantErr: "cannot stand"},
	} {
		t.Run(name, func(t *testing.T) {
			err := policy.CheckIdentity(c.service, c.node)
			if c.wantErr == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.wantErr)
			require.Less(t, len(err.Error()), 512, "it is written to the log")
		})
	}
}

func TestWhatCameThroughAGatewayIsKnownByItsName(t *testing.T) {
	const domain = "11111111-2222-4333-8444-555555555555.konsul"
	for name, c := range map[string]struct {
		serverName string
		want       bool
	}{
		"by address":                 {serverName: ""},
		"by a host's name":           {serverName: "ca.us-east"},
		"by a name of Kubernetes":    {serverName: "konsul-ca.konsul-system.svc.cluster.local"},
		"by the ca's control name":   {serverName: "ca.control.us-east." + domain, want: true},
		"in upper case":              {serverName: "CA.CONTROL.US-EAST." + domain, want: true},
		"by a workload's name":       {serverName: "ca.us-east." + domain, want: true},
		"by another federation's":    {serverName: "ca.control.us-east.other.konsul"},
		"by a name nobody routes by": {serverName: "ca.x.us-east." + domain},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, policy.ThroughGateway(c.serverName, domain)) })
	}
}

func TestThePrimarysIntermediateIsGivenToNobody(t *testing.T) {
	require.Error(t, policy.CheckRenewal("us-east", "us-east"))
	require.NoError(t, policy.CheckRenewal("us-east", "us-west"))
}

func TestACertificateNeverOutlivesItsIssuer(t *testing.T) {
	now := time.Unix(1000, 0)
	issuer := &x509.Certificate{NotBefore: now, NotAfter: now.Add(time.Hour)}
	_, end := policy.Validity(now, 24*time.Hour, issuer)
	require.Equal(t, issuer.NotAfter, end)
	_, end = policy.Validity(now, time.Minute, issuer)
	require.Equal(t, now.Add(time.Minute), end)
	require.Equal(t, now.Add(40*time.Minute), policy.RenewAt(issuer))
}
