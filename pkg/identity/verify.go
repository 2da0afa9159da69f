package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// leafID reads the one SPIFFE id of a certificate.
func leafID(leaf *x509.Certificate) (ID, error) {
	if len(leaf.URIs) != 1 {
		return ID{}, fmt.Errorf("certificate carries %d URIs instead of one SPIFFE id", len(leaf.URIs))
	}
	return ParseID(leaf.URIs[0].String())
}

// PeerFromState answers who is at the other end of a connection whose handshake one of our
// configurations verified. It verifies nothing by itself.
func PeerFromState(state tls.ConnectionState) (ID, error) {
	if len(state.PeerCertificates) == 0 {
		return ID{}, errors.New("peer showed no certificate")
	}
	return leafID(state.PeerCertificates[0])
}

// Verify answers the identity of a chain, leaf first, or why it is not believed at a given time.
func Verify(chain, roots []*x509.Certificate, now time.Time) (ID, error) {
	if len(chain) == 0 {
		return ID{}, errors.New("peer showed no certificate")
	}
	id, err := leafID(chain[0])
	if err != nil {
		return ID{}, err
	}
	if chain[0].IsCA {
		return ID{}, errors.New("a signing certificate is no identity")
	}
	rootPool, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		rootPool.AddCert(root)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots: rootPool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return ID{}, fmt.Errorf("verify chain of %s: %w", id, err)
	}
	want := DatacenterURI(id.FederationID, id.Datacenter)
	for _, path := range verified {
		// leaf, the datacenter's intermediate, root: nothing else may sign an identity.
		if len(path) == 3 && len(path[1].URIs) == 1 && path[1].URIs[0].String() == want {
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("%s was not signed by the intermediate of its own datacenter", id)
}
