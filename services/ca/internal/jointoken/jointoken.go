// Package jointoken is the one thing an operator carries from the primary to a new datacenter.
//
// A token pins the federation's root, says where the primary's gateways are, and holds an Ed25519 key
// whose public half the primary remembers: the secret itself never travels.
package jointoken

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"time"

	"konsul.dev/pkg/fault"
)

const (
	prefix  = "konsul-join-v1."
	maxText = 64 << 10
	field   = "ca.join_token_file"
	remedy  = "make one in the primary: konsulctl datacenter token create --datacenter NAME"
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

// Key answers the private key the bearer proves with.
func (t Token) Key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(t.Seed) }

// RootCertificate answers the pinned trust anchor.
func (t Token) RootCertificate() (*x509.Certificate, error) {
	root, err := x509.ParseCertificate(t.Root)
	if err != nil {
		return nil, invalid("pins no certificate")
	}
	return root, nil
}

// String answers the token's text, which is a secret.
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
	if t.ID == "" || t.FederationID == "" || t.PrimaryDatacenter == "" || t.Datacenter == "" || len(t.Gateways) == 0 || len(t.Seed) != ed25519.SeedSize {
		return Token{}, invalid("holds an incomplete join token")
	}
	if _, err := t.RootCertificate(); err != nil {
		return Token{}, err
	}
	return t, nil
}

// Read reads the token in a file.
func Read(path string) (Token, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Token{}, fault.Invalid(field, "cannot be read: %v", err).WithRemedy(remedy)
	}
	return Parse(string(text))
}

func invalid(what string) *fault.Error { return fault.Invalid(field, "%s", what).WithRemedy(remedy) }
