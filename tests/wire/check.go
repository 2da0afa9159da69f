package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// TLS record types and sizes, RFC 8446 section 5.1.
const (
	recordHeader       = 5
	changeCipherSpec   = 20
	applicationData    = 23
	maxRecordPayload   = 1<<14 + 256
	recordVersionMajor = 3
)

// CheckTLS returns an error unless stream, the bytes of one direction of a connection from its
// start, is a sequence of TLS records. A record cut off at the end is fine.
func CheckTLS(stream []byte) error {
	for offset := 0; len(stream)-offset >= recordHeader; {
		kind, major := stream[offset], stream[offset+1]
		length := int(binary.BigEndian.Uint16(stream[offset+3:]))
		if kind < changeCipherSpec || kind > applicationData || major != recordVersionMajor || length > maxRecordPayload {
			return fmt.Errorf("no TLS record at byte %d: % x", offset, stream[offset:offset+recordHeader])
		}
		offset += recordHeader + length
	}
	return nil
}

// Sizes and marks of memberlist's encryption: version byte, AES-GCM nonce and tag; on streams a
// message type in front.
const (
	maxEncryptionVersion = 1
	nonceAndTag          = 12 + 16
	encryptedStreamMark  = 10
)

// CheckGossipPacket returns an error unless a datagram is a memberlist packet under encryption.
func CheckGossipPacket(packet []byte) error {
	if len(packet) <= 1+nonceAndTag || packet[0] > maxEncryptionVersion {
		return fmt.Errorf("no encrypted gossip: %d bytes, begins % x", len(packet), packet[:min(8, len(packet))])
	}
	return nil
}

// CheckGossipStream returns an error unless one direction of a memberlist connection is encrypted.
func CheckGossipStream(stream []byte) error {
	if len(stream) > 0 && stream[0] != encryptedStreamMark {
		return fmt.Errorf("no encrypted gossip stream: begins % x", stream[:min(8, len(stream))])
	}
	return nil
}

// CheckSecrets returns an error if any of the secrets appears in data.
func CheckSecrets(data []byte, secrets ...string) error {
	for _, secret := range secrets {
		if i := bytes.Index(data, []byte(secret)); i >= 0 {
			return fmt.Errorf("%q in the clear at byte %d", secret, i)
		}
	}
	return nil
}
