package target

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
)

const datacenter = "bench"

// Credentials are the files of one identity.
type Credentials struct {
	Chain, Key, Roots string
}

// pki is the authority behind every certificate of a benchmark: all targets prove themselves by the
// same kind.
type pki struct {
	registry, gateway Credentials
}

// newPKI makes an authority, the servers' identity and the clients', the datacenter's gateway.
func newPKI(dir string) (pki, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return pki{}, fmt.Errorf("make directory of certificates: %w", err)
	}
	federation := uuid.NewString()
	ca := identitytest.NewCA(must{}, federation)
	write := func(service string) (Credentials, error) {
		id := identity.ID{FederationID: federation, Datacenter: datacenter, Kind: identity.KindService, Service: service}
		return writeMaterial(filepath.Join(dir, service), ca.Material(id, datacenter))
	}
	var p pki
	var err error
	if p.registry, err = write("registry"); err != nil {
		return pki{}, err
	}
	p.gateway, err = write("gateway")
	return p, err
}

// must stands where the authority, made for tests, wants one: making a key never fails here.
type must struct{ testing.TB }

func (must) Helper()                           {}
func (must) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (must) FailNow()                          { panic("certificate could not be made") }

func writeMaterial(base string, m identity.Material) (Credentials, error) {
	c := Credentials{Chain: base + ".pem", Key: base + ".key", Roots: base + ".roots.pem"}
	key, ok := m.Key.(*ecdsa.PrivateKey)
	if !ok {
		return c, fmt.Errorf("key is a %T", m.Key)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return c, fmt.Errorf("encode key: %w", err)
	}
	for path, content := range map[string][]byte{
		c.Chain: certificates(m.Chain), c.Roots: certificates(m.Roots),
		c.Key: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return c, fmt.Errorf("write credentials: %w", err)
		}
	}
	return c, nil
}

func certificates(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// source reads the identity back.
func (c Credentials) source() (*identity.Rotating, error) {
	pair, err := tls.LoadX509KeyPair(c.Chain, c.Key)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	m := identity.Material{}
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", c.Chain, err)
		}
		m.Chain = append(m.Chain, cert)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T", c.Key, pair.PrivateKey)
	}
	m.Key = key
	text, err := os.ReadFile(c.Roots)
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", c.Roots, err)
		}
		m.Roots = append(m.Roots, root)
	}
	return identity.NewRotating(m)
}

// Client is the TLS configuration of a client that shows these credentials.
func (c Credentials) Client() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.Chain, c.Key)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	text, err := os.ReadFile(c.Roots)
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", c.Roots)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}
