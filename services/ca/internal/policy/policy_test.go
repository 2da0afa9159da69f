package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net"
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
	require.NoError(t, policy.CheckService("wan-gossip"))
	require.Error(t, policy.CheckService("payment-api"))
	require.Error(t, policy.CheckService(""))
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
