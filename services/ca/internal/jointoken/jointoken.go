// Package jointoken is the one thing an operator carries from the primary to a new datacenter.
//
// A token pins the federation's root, says where the primary's gateways are, and holds an Ed25519
// key whose public half the primary remembers: the secret itself never travels.
package jointoken

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
)

const (
	prefix  = "konsul-join-v1."
	maxText = 64 << 10
	field   = "ca.join_token_file"
	remedy  = "make one in the primary: konsulctl datacenter token create --datacenter NAME"
)

// Reasons why a token does not admit.
const (
	ReasonForAnother = "JOIN_TOKEN_FOR_ANOTHER"
	ReasonExpired    = "JOIN_TOKEN_EXPIRED"
)

// Token admits one datacenter, once.
type Token struct {
	ID                string    `json:"id"`
	FederationID      string    `json:"federation_id"`
	PrimaryDatacenter string    `json:"primary_datacenter"`
	Gateways          []string  `json:"gateways"`
	Root              []byte    `json:"root"` // DER
	Seed              []byte    `json:"seed"` // Ed25519
	Datacenter        string    `json:"datacenter"`
	ExpiresAt         time.Time `json:"expires_at"`
}

// Key returns the private key the bearer proves with.
func (t Token) Key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(t.Seed) }

// RootCertificate returns the pinned trust anchor.
func (t Token) RootCertificate() (*x509.Certificate, error) {
	root, err := x509.ParseCertificate(t.Root)
	if err != nil {
		return nil, invalid("pins no certificate")
	}
	return root, nil
}

// String returns the token's text, which is a secret.
func (t Token) String() string {
	content, err := json.Marshal(t)
	if err != nil {
		panic("a token always encodes: " + err.Error())
	}
	return prefix + base64.RawURLEncoding.EncodeToString(content)
}

// Parse reads a token's text, strictly.
func Parse(text string) (Token, error) {
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, prefix)
	if !ok || len(text) > maxText {
		return Token{}, invalid("holds no join token: it does not begin with " + prefix)
	}
	content, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return Token{}, invalid("holds a damaged join token")
	}
	decoder := json.NewDecoder(strings.NewReader(string(content)))
	decoder.DisallowUnknownFields()
	var t Token
	if err := decoder.Decode(&t); err != nil {
		return Token{}, invalid("holds a damaged join token")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Token{}, invalid("holds a damaged join token")
	}
	return t, t.check()
}

// check refuses a token that could not have come from a ca.
func (t Token) check() error {
	if t.ID == "" || len(t.Gateways) == 0 || len(t.Seed) != ed25519.SeedSize || t.ExpiresAt.IsZero() {
		return invalid("holds an incomplete join token")
	}
	if !config.ValidDatacenter(t.Datacenter) || !config.ValidDatacenter(t.PrimaryDatacenter) {
		return invalid("names a malformed datacenter")
	}
	issuer := identity.ID{FederationID: t.FederationID, Datacenter: t.PrimaryDatacenter, Kind: identity.KindService, Service: "ca"}
	if parsed, err := identity.ParseID(issuer.String()); err != nil || parsed != issuer {
		return invalid("names a malformed federation")
	}
	for _, gateway := range t.Gateways {
		if config.CheckAddress(field, gateway) != nil {
			return invalid(fmt.Sprintf("names a malformed gateway %q", gateway))
		}
	}
	root, err := t.RootCertificate()
	if err != nil {
		return err
	}
	if !root.IsCA {
		return invalid("pins a certificate that is no trust anchor")
	}
	return nil
}

// Usable refuses to use the token for another datacenter than its own, or too late.
func (t Token) Usable(datacenter string, now time.Time) error {
	if err := Admits(t.Datacenter, datacenter, t.ExpiresAt, now); err != nil {
		return err.WithField(field)
	}
	return nil
}

// Admits returns why a token for one datacenter does not admit another, or not any more; nil when
// it does.
func Admits(admitted, datacenter string, expires, now time.Time) *fault.Error {
	switch {
	case admitted != datacenter:
		return fault.New(fault.FailedPrecondition, ReasonForAnother, "the token admits %q, not %q", admitted, datacenter).
			WithRemedy("make a token for this datacenter, or correct server.datacenter")
	case now.After(expires):
		return fault.New(fault.FailedPrecondition, ReasonExpired, "the token expired at %s", expires.Format(time.RFC3339)).
			WithRemedy("make a new one in the primary")
	}
	return nil
}

func invalid(what string) *fault.Error { return fault.Invalid(field, "%s", what).WithRemedy(remedy) }
