package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// leafID reads the one SPIFFE id of a certificate.
func leafID(leaf *x509.Certificate) (ID, error) {
	if len(leaf.URIs) != 1 {
		return ID{}, fmt.Errorf("certificate carries %d URIs instead of one SPIFFE id", len(leaf.URIs))
	}
	return ParseID(leaf.URIs[0].String())
}

// PeerFromState returns who is at the other end of a connection whose handshake one of our
// configurations verified. It verifies nothing by itself.
func PeerFromState(state tls.ConnectionState) (ID, error) {
	if len(state.PeerCertificates) == 0 {
		return ID{}, errors.New("peer showed no certificate")
	}
	return leafID(state.PeerCertificates[0])
}

// ValidityError says that a certificate is not valid at this moment by this host's clock, which may
// be the one that is wrong.
type ValidityError struct {
	// Of is whose chain it is, Subject the certificate's own name.
	Of      ID
	Subject string
	// NotBefore and NotAfter are from the clock of the ca that signed it, Now from this host's.
	NotBefore, NotAfter, Now time.Time
}

// Error implements error.
func (e *ValidityError) Error() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	if e.Now.Before(e.NotBefore) {
		return fmt.Sprintf("the certificate of %s (%s) is not valid yet: its ca says from %s, this host's clock says %s, %s before; compare the clocks",
			e.Of, e.Subject, at(e.NotBefore), at(e.Now), e.NotBefore.Sub(e.Now).Round(time.Second))
	}
	return fmt.Sprintf("the certificate of %s (%s) has expired: its ca says until %s, this host's clock says %s, %s after; renew it, or compare the clocks",
		e.Of, e.Subject, at(e.NotAfter), at(e.Now), e.Now.Sub(e.NotAfter).Round(time.Second))
}

// nearest is the moment of the validity that is nearest to now.
func (e *ValidityError) nearest() time.Time {
	if e.Now.Before(e.NotBefore) {
		return e.NotBefore
	}
	return e.NotAfter
}

// outOfTime returns what is wrong with the time of a chain: the certificate that begins last, or
// ends first, is not valid; nil when all are.
func outOfTime(id ID, chain, roots []*x509.Certificate, now time.Time) *ValidityError {
	last, first := chain[0], chain[0]
	for _, c := range append(slices.Clone(chain), roots...) {
		if c.NotBefore.After(last.NotBefore) {
			last = c
		}
	}
	for _, c := range chain {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	wrong := last
	switch {
	case now.After(first.NotAfter):
		wrong = first
	case !now.Before(last.NotBefore):
		return nil
	}
	return &ValidityError{Of: id, Subject: wrong.Subject.CommonName, NotBefore: wrong.NotBefore, NotAfter: wrong.NotAfter, Now: now}
}

// Verify returns the identity of a chain, leaf first, or why it is not believed at a given time.
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
	options := x509.VerifyOptions{
		Roots: rootPool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	verified, err := chain[0].Verify(options)
	if err != nil {
		if invalid := outOfTime(id, chain, roots, now); invalid != nil {
			// Only of a chain that would be believed at another time is the time what is wrong.
			options.CurrentTime = invalid.nearest()
			if _, err = chain[0].Verify(options); err == nil {
				return ID{}, invalid
			}
		}
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
