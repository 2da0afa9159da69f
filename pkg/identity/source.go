package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ClientCertMode reports whether a server insists on a client certificate.
type ClientCertMode int

const (
	// Require refuses clients without a valid certificate during the handshake.
	Require ClientCertMode = iota
	// VerifyIfGiven admits clients without one; one that is shown must be valid.
	VerifyIfGiven
	// NoClientCert does not ask for one: for the people's edge, where a bearer token decides.
	NoClientCert
)

// ServerOptions shapes a server's side of TLS.
type ServerOptions struct {
	ClientCert ClientCertMode
	// Accept refuses some of the federation's identities during the handshake; nil accepts all.
	Accept     func(ID) error
	NextProtos []string
}

// Want says who must be at the other end.
type Want struct {
	// Datacenter must be the peer's; empty: the own one.
	Datacenter string
	// Service must be the peer's.
	Service string
	// Any accepts every identity of the federation.
	Any bool
}

// Source gives TLS configurations for one identity. Certificates and roots are looked up for each
// handshake, so rotation needs no restart.
type Source interface {
	// ID returns whose identity it is.
	ID() ID
	// ServerTLS returns a configuration for listeners.
	ServerTLS(o ServerOptions) *tls.Config
	// ClientTLS returns a configuration for dialling; serverName is the SNI and is not verified,
	// Want is.
	ClientTLS(w Want, serverName string) *tls.Config
}

// Material is what proves an identity.
type Material struct {
	// Chain is the leaf, then its issuing intermediate.
	Chain []*x509.Certificate
	Key   crypto.Signer
	// Roots are the federation's trust anchors.
	Roots []*x509.Certificate
}

func (m Material) certificate() *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: m.Key, Leaf: m.Chain[0]}
	for _, c := range m.Chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// Rotating is a Source whose material can be replaced while it is in use.
type Rotating struct {
	id      ID
	current atomic.Pointer[Material]
}

// check returns whose identity material proves, or why it proves none.
func (m Material) check() (ID, error) {
	id, err := Verify(m.Chain, m.Roots, time.Now())
	if err != nil {
		return ID{}, err
	}
	public, ok := m.Chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if m.Key == nil || !ok || !public.Equal(m.Key.Public()) {
		return ID{}, fmt.Errorf("certificate of %s is for another key", id)
	}
	return id, nil
}

// NewRotating returns a source for the identity in material.
func NewRotating(m Material) (*Rotating, error) {
	id, err := m.check()
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	r := &Rotating{id: id}
	r.current.Store(&m)
	return r, nil
}

// Set replaces the material for all handshakes from now on. It must be valid and name the same
// identity.
func (r *Rotating) Set(m Material) error {
	id, err := m.check()
	if err != nil {
		return fmt.Errorf("new certificate: %w", err)
	}
	same := id
	if r.id.Node == "" {
		same.Node = "" // The ca was upgraded meanwhile, and its new version names the agent's node.
	}
	if same != r.id {
		return fmt.Errorf("new certificate is for %s, not %s", id, r.id)
	}
	r.current.Store(&m)
	return nil
}

// Material returns what is in use now.
func (r *Rotating) Material() Material { return *r.current.Load() }

// ID returns whose identity it is.
func (r *Rotating) ID() ID { return r.id }

// ServerTLS returns a configuration for listeners.
func (r *Rotating) ServerTLS(o ServerOptions) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: o.NextProtos,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return r.Material().certificate(), nil
		},
		// A resumed session would outlive the certificate that opened it.
		SessionTicketsDisabled: true,
	}
	if o.ClientCert == NoClientCert {
		return cfg
	}
	cfg.ClientAuth = tls.RequireAnyClientCert
	if o.ClientCert == VerifyIfGiven {
		cfg.ClientAuth = tls.RequestClientCert
	}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 && o.ClientCert == VerifyIfGiven {
			return nil
		}
		id, err := r.verify(state)
		if err != nil || o.Accept == nil {
			return err
		}
		return o.Accept(id)
	}
	return cfg
}

// ClientTLS returns a configuration for dialling.
func (r *Rotating) ClientTLS(w Want, serverName string) *tls.Config {
	if w.Datacenter == "" {
		w.Datacenter = r.id.Datacenter
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: serverName,
		// The chain and the SPIFFE id are verified below; host names mean nothing between services.
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return r.Material().certificate(), nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := r.verify(state)
			if err != nil || w.Any {
				return err
			}
			if id.Kind != KindService || id.Datacenter != w.Datacenter || id.Service != w.Service {
				return fmt.Errorf("reached %s instead of service %s of datacenter %s", id, w.Service, w.Datacenter)
			}
			return nil
		},
	}
}

var errForeign = errors.New("peer belongs to another federation")

func (r *Rotating) verify(state tls.ConnectionState) (ID, error) {
	id, err := Verify(state.PeerCertificates, r.Material().Roots, time.Now())
	if err != nil {
		return ID{}, err
	}
	if id.FederationID != r.id.FederationID {
		return ID{}, errForeign
	}
	return id, nil
}
