package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"log/slog"
	"os"
)

// minSecret is how many random bytes a datacenter secret must have: a proof made with it can be
// tried offline by whoever provoked it, so it must not be guessable.
const minSecret = 32

const secretRemedy = "make one with `konsulctl secret generate`, and from it a key for every component: `konsulctl secret derive`"

// NewSecret returns a fresh datacenter secret as text.
func NewSecret() string {
	secret := make([]byte, minSecret)
	_, _ = rand.Read(secret) // never fails, see crypto/rand
	return base64.StdEncoding.EncodeToString(secret)
}

// WarnIfExposed logs when every user of the machine may read a secret file.
func WarnIfExposed(log *slog.Logger, path string) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o007 != 0 {
		log.Warn("secret file is open to every user of this machine; chmod 600 it", "path", path, "mode", info.Mode().Perm().String())
	}
}

// Channel binding, RFC 5705 as TLS 1.3 defines it (RFC 8446 section 7.5).
const (
	exporterLabel  = "EXPORTER-konsul-enroll"
	exporterLength = 32
)

// Exporter returns the value that both ends of one TLS connection share, and nobody else.
func Exporter(state tls.ConnectionState) ([]byte, error) {
	value, err := state.ExportKeyingMaterial(exporterLabel, nil, exporterLength)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	return value, nil
}

// ClientProof returns the proof of EnrollRequest: that the caller holds a component key, on this
// connection, for this CSR.
func ClientProof(key, exporter, csr []byte) []byte {
	digest := sha256.Sum256(csr)
	return prove(key, "konsul-enroll-client", exporter, digest[:])
}

// ServerProof returns the proof of EnrollResponse: that the ca has the caller's component key, on
// this connection, for this answer.
func ServerProof(key, exporter []byte, chain, roots [][]byte) []byte {
	digest := sha256.New()
	for _, list := range [][][]byte{chain, roots} {
		writeLength(digest, len(list))
		for _, der := range list {
			writeLength(digest, len(der))
			digest.Write(der)
		}
	}
	return prove(key, "konsul-enroll-server", exporter, digest.Sum(nil))
}

// JoinMessage returns what a join token's key signs.
func JoinMessage(exporter, csr []byte) []byte {
	digest := sha256.Sum256(csr)
	return append(append([]byte("konsul-join"), exporter...), digest[:]...)
}

func prove(key []byte, role string, exporter, digest []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(role))
	mac.Write(exporter)
	mac.Write(digest)
	return mac.Sum(nil)
}

func writeLength(digest hash.Hash, n int) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(n))
	digest.Write(length[:])
}
