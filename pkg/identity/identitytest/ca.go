// Package identitytest makes identities for tests: a whole federation's certificate authority in
// memory.
package identitytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/identity"
)

// FederationID is a federation id for tests that need only one.
const FederationID = "11111111-2222-4333-8444-555555555555"

const lifetime = 24 * time.Hour

type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// CA is a federation's root with an intermediate for each datacenter that asks. Safe for concurrent
// use.
type CA struct {
	t            testing.TB
	federationID string
	root         signer

	mu            sync.Mutex
	intermediates map[string]signer
}

// NewCA makes the root of a federation.
func NewCA(t testing.TB, federationID string) *CA {
	t.Helper()
	ca := &CA{t: t, federationID: federationID, intermediates: map[string]signer{}}
	ca.root = ca.sign(authority("root", nil), nil)
	return ca
}

// Root returns the trust anchor.
func (c *CA) Root() *x509.Certificate { return c.root.cert }

// Source returns an identity svc/<service> of a datacenter.
func (c *CA) Source(dc, service string) *identity.Rotating {
	c.t.Helper()
	return c.SourceOf(identity.ID{FederationID: c.federationID, Datacenter: dc, Kind: identity.KindService, Service: service})
}

// SourceOf returns any identity of the federation.
func (c *CA) SourceOf(id identity.ID) *identity.Rotating {
	c.t.Helper()
	source, err := identity.NewRotating(c.Material(id, id.Datacenter))
	require.NoError(c.t, err)
	return source
}

// Material returns an identity signed by the intermediate of issuerDC, which may be the wrong one.
func (c *CA) Material(id identity.ID, issuerDC string) identity.Material {
	c.t.Helper()
	issuer := c.intermediate(issuerDC)
	leaf := c.sign(c.leaf(id), &issuer)
	return identity.Material{
		Chain: []*x509.Certificate{leaf.cert, issuer.cert}, Key: leaf.key, Roots: []*x509.Certificate{c.root.cert},
	}
}

// Issuer returns the intermediate of a datacenter.
func (c *CA) Issuer(dc string) *x509.Certificate { return c.intermediate(dc).cert }

// Sign returns a leaf for somebody else's key, good from one time to another.
func (c *CA) Sign(id identity.ID, issuerDC string, key *ecdsa.PublicKey, from, to time.Time) *x509.Certificate {
	c.t.Helper()
	template := c.leaf(id)
	template.NotBefore, template.NotAfter = from, to
	issuer := c.intermediate(issuerDC)
	return c.certify(template, issuer.cert, key, issuer.key)
}

func (c *CA) leaf(id identity.ID) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: id.Service},
		URIs:        []*url.URL{c.uri(id.String())},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
}

func (c *CA) intermediate(dc string) signer {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.intermediates[dc]
	if !ok {
		s = c.sign(authority(dc, c.uri(identity.DatacenterURI(c.federationID, dc))), &c.root)
		c.intermediates[dc] = s
	}
	return s
}

func authority(name string, uri *url.URL) *x509.Certificate {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if uri != nil {
		template.URIs = []*url.URL{uri}
	}
	return template
}

func (c *CA) sign(template *x509.Certificate, issuer *signer) signer {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(c.t, err)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(lifetime)
	parent := signer{cert: template, key: key}
	if issuer != nil {
		parent = *issuer
	}
	return signer{cert: c.certify(template, parent.cert, &key.PublicKey, parent.key), key: key}
}

func (c *CA) certify(template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	c.t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	require.NoError(c.t, err)
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	require.NoError(c.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(c.t, err)
	return cert
}

func (c *CA) uri(text string) *url.URL {
	c.t.Helper()
	u, err := url.Parse(text)
	require.NoError(c.t, err)
	return u
}
