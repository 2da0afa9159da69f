package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	identityFile = "identity.pem"
	typeKey      = "PRIVATE KEY"
	typeChain    = "CERTIFICATE"
	typeRoot     = "TRUSTED CERTIFICATE"
)

// save writes material to dir so that a crash leaves the old file or the new one.
func save(dir string, m Material) error {
	key, err := x509.MarshalPKCS8PrivateKey(m.Key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	var text bytes.Buffer
	blocks := []*pem.Block{{Type: typeKey, Bytes: key}}
	for _, c := range m.Chain {
		blocks = append(blocks, &pem.Block{Type: typeChain, Bytes: c.Raw})
	}
	for _, c := range m.Roots {
		blocks = append(blocks, &pem.Block{Type: typeRoot, Bytes: c.Raw})
	}
	for _, block := range blocks {
		if err := pem.Encode(&text, block); err != nil {
			return fmt.Errorf("encode identity: %w", err)
		}
	}
	return WriteFile(filepath.Join(dir, identityFile), text.Bytes())
}

// load reads what save wrote; os.ErrNotExist when there is nothing.
func load(dir string) (Material, error) {
	text, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		return Material{}, fmt.Errorf("read identity: %w", err)
	}
	var m Material
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if err := m.add(block); err != nil {
			return Material{}, fmt.Errorf("parse %s: %w", identityFile, err)
		}
	}
	if m.Key == nil || len(m.Chain) == 0 {
		return Material{}, fmt.Errorf("%s is incomplete", identityFile)
	}
	return m, nil
}

func (m *Material) add(block *pem.Block) error {
	if block.Type == typeKey {
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return err
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return errors.New("key cannot sign")
		}
		m.Key = signer
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	switch block.Type {
	case typeChain:
		m.Chain = append(m.Chain, cert)
	case typeRoot:
		m.Roots = append(m.Roots, cert)
	default:
		return fmt.Errorf("unexpected block %q", block.Type)
	}
	return nil
}

// WriteFile replaces a file of secrets so that a crash leaves the old content or the new: mode
// 0600, written beside it, synced, renamed, and the folder synced.
func WriteFile(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %q: %w", path, err), os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
