package identity

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/google/uuid"
)

// DatacenterID returns the immutable id of a datacenter, derived from its secret (HKDF-SHA-256, RFC
// 5869): every service that needs it comes to the same one, also after the loss of a disk, and
// another datacenter of the same name has another. It is a version 8 UUID (RFC 9562).
func DatacenterID(secret []byte, datacenter string) (string, error) {
	derived, err := hkdf.Key(sha256.New, secret, nil, "konsul datacenter id v1 "+datacenter, len(uuid.UUID{}))
	if err != nil {
		return "", fmt.Errorf("derive datacenter id: %w", err)
	}
	id := uuid.UUID(derived)
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String(), nil
}
