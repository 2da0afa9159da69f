// Package keyfile keeps the federation's gossip keys over a restart, sealed, so that gossip comes
// up while the ca is away.
//
// Keys are sealed with AES-256-GCM under a key derived by HKDF-SHA-256 (RFC 5869) from what
// server.secret_file holds, the component's key or the datacenter secret, bound to the datacenter's
// name. Functions of their inputs and one file.
package keyfile

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
)

const (
	magic   = "konsul-gossip-keys-v1\n"
	purpose = "konsul wan-gossip keyfile v1"
	keySize = 32
)

// ReasonUnreadable is the reason of a keyfile that cannot be opened.
const ReasonUnreadable = "GOSSIP_KEYFILE_UNREADABLE"

// Box seals and opens the keyfile of one datacenter.
type Box struct {
	path       string
	datacenter string
	aead       cipher.AEAD
}

// New returns a box for the file at path, under the datacenter secret or a key derived from it.
func New(path, datacenter string, secret []byte) (*Box, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, purpose, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive keyfile key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make keyfile cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make keyfile cipher: %w", err)
	}
	return &Box{path: path, datacenter: datacenter, aead: aead}, nil
}

// Save replaces the keys.
func (b *Box) Save(keys [][]byte) error {
	plain, err := proto.Marshal(&cav1.GetGossipKeyResponse{Keys: keys})
	if err != nil {
		return fmt.Errorf("encode gossip keys: %w", err)
	}
	return identity.WriteFile(b.path, b.aead.Seal([]byte(magic), nil, plain, []byte(b.datacenter)))
}

// Load returns the keys; none when there is no file. DataLoss when the file cannot be opened.
func (b *Box) Load() ([][]byte, error) {
	data, err := os.ReadFile(b.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read gossip keys: %w", err)
	}
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, b.unreadable(errors.New("unknown format"))
	}
	plain, err := b.aead.Open(nil, nil, data[len(magic):], []byte(b.datacenter))
	if err != nil {
		return nil, b.unreadable(err)
	}
	var content cav1.GetGossipKeyResponse
	if err := proto.Unmarshal(plain, &content); err != nil {
		return nil, b.unreadable(err)
	}
	return content.GetKeys(), nil
}

func (b *Box) unreadable(cause error) error {
	return fault.New(fault.DataLoss, ReasonUnreadable, "%q cannot be opened with what server.secret_file holds", b.path).
		WithRemedy("check server.secret_file; or remove the file and start while the ca is up, which gives the keys again").Wrap(cause)
}
