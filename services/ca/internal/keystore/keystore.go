// Package keystore keeps what the ca must not lose, sealed on disk.
//
// The file is AES-256-GCM under a key derived (HKDF-SHA-256, RFC 5869) from the datacenter secret,
// with the datacenter's name as associated data: it opens only with the right secret in the right
// datacenter, and a changed bit is noticed. Writes leave the old file or the new one.
package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/services/ca/internal/issuer"
)

const (
	stateFile = "ca.sealed"
	format    = "konsul-ca-v1"
	keyLength = 32
)

// State is everything a ca knows.
type State struct {
	FederationID      string
	PrimaryDatacenter string
	// DatacenterID is the immutable id of the datacenter, derived from its first secret; empty in a
	// state that an earlier version kept.
	DatacenterID string
	// Root signs intermediates; its key is here in the primary only.
	Root *issuer.Authority
	// Intermediate signs the leaves of this datacenter.
	Intermediate *issuer.Authority
	// Roots are the federation's trust anchors.
	Roots      []*x509.Certificate
	GossipKeys [][]byte
}

// Store reads and writes the state of one datacenter's ca. Not safe for concurrent use.
type Store struct {
	dir        string
	datacenter string
	aead       cipher.AEAD
	// previous opens what the datacenter's previous secret sealed; nil: nothing does.
	previous cipher.AEAD
}

// Open returns the store in dir. It reads nothing yet. What is sealed with the previous secret is
// sealed anew when it is read; previous may be nil.
func Open(dir, datacenter string, secret, previous []byte) (*Store, error) {
	s := &Store{dir: dir, datacenter: datacenter}
	var err error
	if s.aead, err = seals(secret); err != nil {
		return nil, err
	}
	if previous != nil {
		s.previous, err = seals(previous)
	}
	return s, err
}

func seals(secret []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, format, keyLength)
	if err != nil {
		return nil, fmt.Errorf("derive sealing key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return aead, nil
}

// Load returns the state; nil without error when there is none yet.
func (s *Store) Load() (*State, error) {
	plain, err := s.unseal(stateFile)
	if err != nil || plain == nil {
		return nil, err
	}
	return decode(plain)
}

// unseal returns what a file holds; nil without error when there is none.
func (s *Store) unseal(name string) ([]byte, error) {
	path := filepath.Join(s.dir, name)
	sealed, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read sealed state: %w", err)
	}
	plain, err := s.open(s.aead, name, sealed)
	if err != nil && s.previous != nil {
		if plain, err = s.open(s.previous, name, sealed); err == nil {
			return plain, s.seal(name, plain)
		}
	}
	if err != nil {
		return nil, unopened(path)
	}
	return plain, nil
}

func (s *Store) open(aead cipher.AEAD, name string, sealed []byte) ([]byte, error) {
	if len(sealed) < aead.NonceSize() {
		return nil, errors.New("shorter than a nonce")
	}
	return aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], s.label(name))
}

func (s *Store) seal(name string, plain []byte) error {
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails, see crypto/rand
	return identity.WriteFile(filepath.Join(s.dir, name), s.aead.Seal(nonce, nonce, plain, s.label(name)))
}

// label is sealed along with a file, so that neither another datacenter's nor another file opens in
// its place.
func (s *Store) label(name string) []byte {
	if name == stateFile {
		return []byte(s.datacenter)
	}
	return []byte(s.datacenter + "/" + name)
}

func unopened(path string) error {
	return fault.New(fault.FailedPrecondition, "CA_STATE_SEALED", "does not open the ca's state in %q: wrong secret, wrong datacenter, or a damaged file", path).
		WithField("server.secret_file").WithRemedy("give the secret it was sealed with; if that was replaced, name the one before in ca.previous_secret_file; nothing was changed")
}

// Save seals the state.
func (s *Store) Save(state *State) error {
	plain, err := encode(state)
	if err != nil {
		return err
	}
	return s.seal(stateFile, plain)
}

// onDisk is State as it is encoded: keys as PKCS #8, certificates as DER.
type onDisk struct {
	FederationID      string   `json:"federation_id"`
	PrimaryDatacenter string   `json:"primary_datacenter"`
	DatacenterID      string   `json:"datacenter_id,omitempty"`
	RootCert          []byte   `json:"root_cert,omitempty"`
	RootKey           []byte   `json:"root_key,omitempty"`
	IntermediateCert  []byte   `json:"intermediate_cert"`
	IntermediateKey   []byte   `json:"intermediate_key"`
	Roots             [][]byte `json:"roots"`
	GossipKeys        [][]byte `json:"gossip_keys"`
}

func encode(state *State) ([]byte, error) {
	d := onDisk{FederationID: state.FederationID, PrimaryDatacenter: state.PrimaryDatacenter, DatacenterID: state.DatacenterID, GossipKeys: state.GossipKeys}
	var err error
	if state.Root != nil {
		d.RootCert = state.Root.Certificate.Raw
		if d.RootKey, err = x509.MarshalPKCS8PrivateKey(state.Root.Key); err != nil {
			return nil, fmt.Errorf("encode root key: %w", err)
		}
	}
	d.IntermediateCert = state.Intermediate.Certificate.Raw
	if d.IntermediateKey, err = x509.MarshalPKCS8PrivateKey(state.Intermediate.Key); err != nil {
		return nil, fmt.Errorf("encode intermediate key: %w", err)
	}
	for _, root := range state.Roots {
		d.Roots = append(d.Roots, root.Raw)
	}
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return plain, nil
}

func decode(plain []byte) (*State, error) {
	var d onDisk
	if err := json.Unmarshal(plain, &d); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	state := &State{FederationID: d.FederationID, PrimaryDatacenter: d.PrimaryDatacenter, DatacenterID: d.DatacenterID, GossipKeys: d.GossipKeys}
	var err error
	if len(d.RootKey) > 0 {
		if state.Root, err = parseAuthority(d.RootCert, d.RootKey); err != nil {
			return nil, fmt.Errorf("root: %w", err)
		}
	}
	if state.Intermediate, err = parseAuthority(d.IntermediateCert, d.IntermediateKey); err != nil {
		return nil, fmt.Errorf("intermediate: %w", err)
	}
	for _, der := range d.Roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse trust anchor: %w", err)
		}
		state.Roots = append(state.Roots, root)
	}
	return state, nil
}

func parseAuthority(cert, key []byte) (*issuer.Authority, error) {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	k, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	return &issuer.Authority{Certificate: c, Key: k}, nil
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse key: %w", err)
	}
	signer, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("key is not ECDSA")
	}
	return signer, nil
}
