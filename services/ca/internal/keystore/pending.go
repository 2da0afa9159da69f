package keystore

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"konsul.dev/services/ca/internal/issuer"
)

const pendingFile = "join.sealed"

// Pending is a join that was begun: with which token and key. It is on disk before the primary is
// asked, so that when the answer is lost, after the token was consumed, the same question gets the
// same answer.
type Pending struct {
	TokenID string
	Key     *ecdsa.PrivateKey
}

type pendingOnDisk struct {
	TokenID string `json:"token_id"`
	Key     []byte `json:"key"`
}

// Pending returns the join that was begun with a token, or begins one.
func (s *Store) Pending(tokenID string) (*Pending, error) {
	plain, err := s.unseal(pendingFile)
	if err != nil {
		return nil, err
	}
	if plain != nil {
		if p, err := decodePending(plain); err != nil || p.TokenID == tokenID {
			return p, err
		}
	}
	key, err := issuer.NewKey()
	if err != nil {
		return nil, err
	}
	p := &Pending{TokenID: tokenID, Key: key}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	if plain, err = json.Marshal(pendingOnDisk{TokenID: p.TokenID, Key: der}); err != nil {
		return nil, fmt.Errorf("encode pending join: %w", err)
	}
	return p, s.seal(pendingFile, plain)
}

func decodePending(plain []byte) (*Pending, error) {
	var d pendingOnDisk
	if err := json.Unmarshal(plain, &d); err != nil {
		return nil, fmt.Errorf("decode pending join: %w", err)
	}
	key, err := parseKey(d.Key)
	if err != nil {
		return nil, err
	}
	return &Pending{TokenID: d.TokenID, Key: key}, nil
}

// DropPending forgets a join that was begun: it has succeeded, or was refused for good.
func (s *Store) DropPending() error {
	if err := os.Remove(filepath.Join(s.dir, pendingFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop pending join: %w", err)
	}
	return nil
}
