// Package policy decides what the ca may sign. It is a set of plain functions of their inputs.
package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"net"
	"slices"
	"time"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
)

const (
	// gateway is the one component that people reach by host name.
	gateway = "gateway"
	agent   = "agent"
	ca      = "ca"
)

// Components returns the services that may ask for an identity of the control plane. The ca is not
// among them: it signs its own, and whoever had one could ask the primary for a datacenter's
// intermediate.
func Components() []string {
	return []string{"registry", "wan-gossip", "replicator", gateway, "failover-router", agent}
}

// CheckIdentity refuses identities for anything that is no component of ours, and for the ca.
func CheckIdentity(service, node string) error {
	switch {
	case service == ca:
		return fault.New(fault.PermissionDenied, "CA_SIGNS_ITSELF", "the ca signs its own certificate and gives nobody else one").
			WithField("service")
	case !slices.Contains(Components(), service):
		return fault.Invalid("service", "%.64q is no konsul service", service)
	case node != "" && service != agent:
		return fault.Invalid("node", "is for agents, not for %s", service)
	case node != "" && !identity.ValidNode(node):
		return fault.Invalid("node", "%.128q cannot stand in an agent's certificate", node)
	}
	return nil
}

// ThroughGateway reports whether a connection was opened with a server name by which gateways
// route. They route by that name alone and pass the bytes on as they came, so no connection that
// came through one is without it.
func ThroughGateway(serverName, trustDomain string) bool {
	name, err := identity.ParseSNI(serverName)
	return err == nil && name.TrustDomain == trustDomain
}

// CheckRenewal refuses an intermediate to a datacenter that signs its own.
func CheckRenewal(primary, datacenter string) error {
	if datacenter == primary {
		return fault.New(fault.PermissionDenied, "CA_SIGNS_ITSELF", "the ca of the primary %s signs its own intermediate and gives nobody else one", primary)
	}
	return nil
}

// ParseRequest reads a certificate request and checks that its sender holds the key, an ECDSA P-256
// one.
func ParseRequest(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fault.Invalid("csr", "no certificate request: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fault.Invalid("csr", "not signed by its own key: %v", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fault.Invalid("csr", "key is not ECDSA P-256")
	}
	return csr, nil
}

// HostNames returns which of the names a request asks for are granted.
func HostNames(service string, csr *x509.CertificateRequest) ([]string, []net.IP) {
	if service != gateway {
		return nil, nil
	}
	return csr.DNSNames, csr.IPAddresses
}

// clockSkew is how far clocks may be apart before a fresh certificate is refused.
const clockSkew = time.Minute

// Validity returns from when to when a certificate is good: ttl from now, never longer than its
// issuer.
func Validity(now time.Time, ttl time.Duration, issuer *x509.Certificate) (notBefore, notAfter time.Time) {
	notBefore, notAfter = now.Add(-clockSkew), now.Add(ttl)
	if issuer != nil && notAfter.After(issuer.NotAfter) {
		notAfter = issuer.NotAfter
	}
	return notBefore, notAfter
}

// RenewAt returns when a certificate of ours is due for renewal.
func RenewAt(c *x509.Certificate) time.Time { return identity.RenewAt(c) }
