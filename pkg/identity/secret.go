package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"log/slog"
	"os"
	"strings"

	"konsul.dev/pkg/fault"
)

// minSecret is how many random bytes a datacenter secret must have: a proof made with it can be
// tried offline by whoever provoked it, so it must not be guessable.
const minSecret = 32

const secretRemedy = "make one with `konsulctl secret generate`, the same file on every machine of the datacenter"

// NewSecret answers a fresh datacenter secret as text.
func NewSecret() string {
	secret := make([]byte, minSecret)
	_, _ = rand.Read(secret) // never fails, see crypto/rand
	return base64.StdEncoding.EncodeToString(secret)
}

// ReadSecret reads a datacenter secret: base64 or hex text of at least 32 bytes.
func ReadSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Invalid("server.secret_file", "cannot be read: %v", err).WithRemedy(secretRemedy)
	}
	trimmed := strings.TrimSpace(string(text))
	secret, err := hex.DecodeString(trimmed)
	if err != nil {
		secret, err = base64.StdEncoding.DecodeString(trimmed)
	}
	if err != nil {
		return nil, fault.Invalid("server.secret_file", "%q holds neither base64 nor hex", path).WithRemedy(secretRemedy)
	}
	if len(secret) < minSecret {
		return nil, fault.Invalid("server.secret_file", "%q holds %d bytes, fewer than %d", path, len(secret), minSecret).WithRemedy(secretRemedy)
	}
	return secret, nil
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

// Exporter answers the value that both ends of one TLS connection share, and nobody else.
func Exporter(state tls.ConnectionState) ([]byte, error) {
	value, err := state.ExportKeyingMaterial(exporterLabel, nil, exporterLength)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	return value, nil
}

// ClientProof answers the proof of EnrollRequest: that the caller holds the datacenter secret, on this connection, for this CSR.
func ClientProof(secret, exporter, csr []byte) []byte {
	digest := sha256.Sum256(csr)
	return prove(secret, "konsul-enroll-client", exporter, digest[:])
}

// ServerProof answers the proof of EnrollResponse: that the ca holds the datacenter secret, on this connection, for this answer.
func ServerProof(secret, exporter []byte, chain, roots [][]byte) []byte {
	digest := sha256.New()
	for _, list := range [][][]byte{chain, roots} {
		writeLength(digest, len(list))
		for _, der := range list {
			writeLength(digest, len(der))
			digest.Write(der)
		}
	}
	return prove(secret, "konsul-enroll-server", exporter, digest.Sum(nil))
}

// JoinMessage answers what a join token's key signs.
func JoinMessage(exporter, csr []byte) []byte {
	digest := sha256.Sum256(csr)
	return append(append([]byte("konsul-join"), exporter...), digest[:]...)
}

func prove(secret []byte, role string, exporter, digest []byte) []byte {
	mac := hmac.New(sha256.New, secret)
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
