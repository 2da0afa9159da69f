package arena

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"

	"konsul.dev/pkg/identity"
)

// papers is an identity in a file.
type papers struct {
	Chain, Roots [][]byte
	Key          []byte
}

func writePapers(path string, m identity.Material) error {
	key, err := x509.MarshalPKCS8PrivateKey(m.Key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	p := papers{Key: key}
	for _, c := range m.Chain {
		p.Chain = append(p.Chain, c.Raw)
	}
	for _, c := range m.Roots {
		p.Roots = append(p.Roots, c.Raw)
	}
	return writeJSON(path, p)
}

func readPapers(path string) (*identity.Rotating, error) {
	var p papers
	if err := readJSON(path, &p); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(p.Key)
	if err != nil {
		return nil, fmt.Errorf("parse key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	m := identity.Material{Key: signer}
	for _, der := range p.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		m.Chain = append(m.Chain, c)
	}
	for _, der := range p.Roots {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse root: %w", err)
		}
		m.Roots = append(m.Roots, c)
	}
	return identity.NewRotating(m)
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return os.WriteFile(path, text, 0o600)
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}
