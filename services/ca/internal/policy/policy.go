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

// gateway is the one component that people reach by host name.
const gateway = "gateway"

// components are the services that may hold an identity of the control plane.
func components() []string {
	return []string{"registry", "wan-gossip", "replicator", "ca", gateway, "failover-router", "agent"}
}

// CheckService refuses identities for anything that is no component of ours.
func CheckService(service string) error {
	if !slices.Contains(components(), service) {
		return fault.Invalid("service", "%q is no konsul service", service)
	}
	return nil
}

// ParseRequest reads a certificate request and checks that its sender holds the key, an ECDSA P-256 one.
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

// HostNames answers which of the names a request asks for are granted.
func HostNames(service string, csr *x509.CertificateRequest) ([]string, []net.IP) {
	if service != gateway {
		return nil, nil
	}
	return csr.DNSNames, csr.IPAddresses
}

// clockSkew is how far clocks may be apart before a fresh certificate is refused.
const clockSkew = time.Minute

// Validity answers from when to when a certificate is good: ttl from now, never longer than its issuer.
func Validity(now time.Time, ttl time.Duration, issuer *x509.Certificate) (notBefore, notAfter time.Time) {
	notBefore, notAfter = now.Add(-clockSkew), now.Add(ttl)
	if issuer != nil && notAfter.After(issuer.NotAfter) {
		notAfter = issuer.NotAfter
	}
	return notBefore, notAfter
}

// RenewAt answers when a certificate of ours is due for renewal.
func RenewAt(c *x509.Certificate) time.Time { return identity.RenewAt(c) }
