package acl

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

const (
	// MinSecretBytes is the least length of a token's secret.
	MinSecretBytes = 16
	maxSecretBytes = 512
	// AnonymousAccessor is the accessor id of the token that stands for requests without one.
	AnonymousAccessor = "00000000-0000-0000-0000-000000000002"
)

type hash [sha256.Size]byte

func sumOf(secret string) hash { return sha256.Sum256([]byte(secret)) }

// Hash returns what is stored of a secret.
func Hash(secret string) []byte {
	h := sumOf(secret)
	return h[:]
}

// Normalize returns the secret in a token file: without the space around it.
func Normalize(secret string) string { return strings.TrimSpace(secret) }

// accessorFor returns the accessor id of the token with a secret. It follows from the secret, so
// that a token is made once however often the request is repeated, and tells nothing about it.
func accessorFor(secret string) string {
	h := sumOf(secret)
	sum := sha256.Sum256(append([]byte("konsul-accessor:"), h[:]...))
	x := hex.EncodeToString(sum[:16])
	return strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-")
}

// tokenKey returns the key of a token's row. Its scope shows in it: record.LocalPrefixed decides by
// keys.
func tokenKey(accessor string, local bool) string {
	if local {
		return record.LocalPrefix + accessor
	}
	return accessor
}

func accessorOf(key string) string { return strings.TrimPrefix(key, record.LocalPrefix) }

func checkSecret(field, secret string) error {
	switch n := len(secret); {
	case n < MinSecretBytes || n > maxSecretBytes:
		return fault.Invalid(field, "holds %d bytes; at least %d and at most %d are needed", n, MinSecretBytes, maxSecretBytes).
			WithRemedy("use a random token, such as the output of `openssl rand -hex 32`")
	case strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return fault.Invalid(field, "holds a character that cannot travel in a header").WithRemedy("use printable ASCII without spaces")
	}
	return nil
}

// Initial returns the command that makes a management token of a secret an operator chose. The
// accessor follows from the secret, so that every server makes the same one.
func Initial(secret, datacenter string, now time.Time) (*registryv1.Command, error) {
	secret = Normalize(secret)
	if len(secret) < MinSecretBytes {
		return nil, fault.Invalid("registry.initial_management_token_file", "holds %d bytes; at least %d are needed", len(secret), MinSecretBytes).
			WithRemedy("write a random token into it, such as the output of `openssl rand -hex 32`")
	}
	sum := sha256.Sum256(append([]byte("konsul-initial-accessor:"), Hash(secret)...))
	accessor := hex.EncodeToString(sum[:16])
	token, err := record.Put(tokenTable, accessor, datacenter, &registryv1.ACLToken{
		AccessorId: accessor, SecretHash: Hash(secret), Description: "initial management token",
		Management: true, CreatedAt: timestamppb.New(now),
	})
	if err != nil {
		return nil, fmt.Errorf("make the initial token: %w", err)
	}
	mark, err := bootstrapped("", datacenter, now)
	if err != nil {
		return nil, err
	}
	return &registryv1.Command{
		Operations: []*registryv1.Operation{token, mark},
		Conditions: []*registryv1.Condition{record.When(tokenTable, accessor, 0, ReasonTokenExists)},
	}, nil
}
