// Package issuer makes the federation's certificates: the root, the datacenters' intermediates and
// the services' leaves. It decides nothing about who may have one.
package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"konsul.dev/pkg/identity"
	"konsul.dev/services/ca/internal/policy"
)

const serialBits = 127

// Authority signs with a key. Safe for concurrent use.
type Authority struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// ParseCertificates reads certificates from their DER.
func ParseCertificates(ders [][]byte) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		var err error
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
	}
	return certs, nil
}

// Request makes the certificate request of a key; who asks is proven elsewhere.
func Request(key *ecdsa.PrivateKey) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return csr, nil
}

// NewKey returns a fresh ECDSA P-256 key.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// NewRoot makes the trust anchor of a federation.
func NewRoot(federationID string, now time.Time, ttl time.Duration) (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := authority("Konsul root of "+federationID, nil)
	// The root signs intermediates, and those sign leaves: nothing deeper.
	template.MaxPathLen = 1
	template.NotBefore, template.NotAfter = policy.Validity(now, ttl, nil)
	cert, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &Authority{Certificate: cert, Key: key}, nil
}

// SignIntermediate signs the key of a datacenter's ca.
func (a *Authority) SignIntermediate(federationID, datacenter string, key *ecdsa.PublicKey, now time.Time, ttl time.Duration) (*x509.Certificate, error) {
	uri, err := url.Parse(identity.DatacenterURI(federationID, datacenter))
	if err != nil {
		return nil, fmt.Errorf("name intermediate: %w", err)
	}
	template := authority("Konsul intermediate of "+datacenter, uri)
	template.MaxPathLenZero = true
	template.NotBefore, template.NotAfter = policy.Validity(now, ttl, a.Certificate)
	return sign(template, a.Certificate, key, a.Key)
}

// SignLeaf signs the key of a service.
func (a *Authority) SignLeaf(id identity.ID, key *ecdsa.PublicKey, names []string, ips []net.IP, now time.Time, ttl time.Duration) (*x509.Certificate, error) {
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, fmt.Errorf("name leaf: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: id.Service + "." + id.Datacenter},
		URIs:                  []*url.URL{uri},
		DNSNames:              names,
		IPAddresses:           ips,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	template.NotBefore, template.NotAfter = policy.Validity(now, ttl, a.Certificate)
	return sign(template, a.Certificate, key, a.Key)
}

// CheckIntermediate returns why an intermediate does not let the holder of key sign for a
// datacenter.
func CheckIntermediate(cert *x509.Certificate, key *ecdsa.PublicKey, roots []*x509.Certificate, federationID, datacenter string, now time.Time) error {
	if !key.Equal(cert.PublicKey) {
		return errors.New("the intermediate is for another key")
	}
	if want := identity.DatacenterURI(federationID, datacenter); !cert.IsCA || len(cert.URIs) != 1 || cert.URIs[0].String() != want {
		return fmt.Errorf("the intermediate does not sign for %s", want)
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("verify intermediate: %w", err)
	}
	return nil
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

func sign(template, parent *x509.Certificate, key *ecdsa.PublicKey, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse signed certificate: %w", err)
	}
	return cert, nil
}
