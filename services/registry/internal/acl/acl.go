package acl

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused tokens.
const (
	// ReasonTokenUnknown says that no token has that secret, as far as this datacenter knows.
	ReasonTokenUnknown = "TOKEN_UNKNOWN"
	// ReasonPermissionDenied says that the token may not make this call.
	ReasonPermissionDenied = "PERMISSION_DENIED"
)

// MinSecretBytes is the least length of a token's secret.
const MinSecretBytes = 16

const table = registryv1.Table_TABLE_ACL_TOKEN

type hash [sha256.Size]byte

// Hash answers what is stored of a secret.
func Hash(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// View is the tokens in memory.
type View struct {
	mu     sync.RWMutex
	byHash map[hash]*registryv1.ACLToken
	byID   map[string]hash
}

// NewView answers a view that knows no token.
func NewView() *View { return &View{byHash: map[hash]*registryv1.ACLToken{}, byID: map[string]hash{}} }

// Load replaces the view by what is stored.
func (v *View) Load(r record.Reader) error {
	fresh := NewView()
	var failure error
	err := r.Scan(table, record.ScanOptions{}, func(row *registryv1.Record) bool {
		failure = fresh.apply(row)
		return failure == nil
	})
	if err == nil {
		err = failure
	}
	if err != nil {
		return fmt.Errorf("load the tokens: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.byHash, v.byID = fresh.byHash, fresh.byID
	return nil
}

// Apply takes in committed rows; those of other tables are ignored.
func (v *View) Apply(rows []*registryv1.Record) error {
	for _, row := range rows {
		if row.GetTable() != table {
			continue
		}
		v.mu.Lock()
		err := v.apply(row)
		v.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *View) apply(row *registryv1.Record) error {
	if old, ok := v.byID[row.GetKey()]; ok {
		delete(v.byHash, old)
		delete(v.byID, row.GetKey())
	}
	if row.GetDeleted() {
		return nil
	}
	token := &registryv1.ACLToken{}
	if err := proto.Unmarshal(row.GetValue(), token); err != nil {
		return fmt.Errorf("decode token: %w", err)
	}
	if len(token.GetSecretHash()) != sha256.Size {
		return fmt.Errorf("token %s has a hash of %d bytes", token.GetAccessorId(), len(token.GetSecretHash()))
	}
	h := hash(token.GetSecretHash())
	v.byHash[h], v.byID[row.GetKey()] = token, h
	return nil
}

// Resolve answers the token of a secret, or an Unauthenticated fault. The answer must not be changed.
func (v *View) Resolve(secret string) (*registryv1.ACLToken, error) {
	h := hash(Hash(secret))
	v.mu.RLock()
	token := v.byHash[h]
	v.mu.RUnlock()
	// The map compares hashes, of which an attacker who has no secret learns nothing by timing; the
	// second comparison keeps that true should the map ever be keyed by less.
	if token == nil || subtle.ConstantTimeCompare(token.GetSecretHash(), h[:]) != 1 {
		return nil, fault.New(fault.Unauthenticated, ReasonTokenUnknown, "the token is unknown here").
			WithRemedy("check KONSUL_TOKEN; a new token needs a moment to reach every datacenter")
	}
	return token, nil
}

// Authorize answers a PermissionDenied fault unless the token may call a method.
func Authorize(token *registryv1.ACLToken, method string) error {
	if token.GetManagement() {
		return nil
	}
	return fault.New(fault.PermissionDenied, ReasonPermissionDenied, "token %s may not call %s", token.GetAccessorId(), method).
		WithRemedy("use a management token")
}

// Normalize answers the secret in a token file: without the space around it.
func Normalize(secret string) string { return strings.TrimSpace(secret) }

// Initial answers the command that makes a management token of a secret an operator chose. The
// accessor follows from the secret, so that every server makes the same one.
func Initial(secret, datacenter string, now time.Time) (*registryv1.Command, error) {
	secret = Normalize(secret)
	if len(secret) < MinSecretBytes {
		return nil, fault.Invalid("registry.initial_management_token_file", "holds %d bytes; at least %d are needed", len(secret), MinSecretBytes).
			WithRemedy("write a random token into it, such as the output of `openssl rand -hex 32`")
	}
	sum := sha256.Sum256(append([]byte("konsul-initial-accessor:"), Hash(secret)...))
	accessor := hex.EncodeToString(sum[:16])
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(&registryv1.ACLToken{
		AccessorId: accessor, SecretHash: Hash(secret), Description: "initial management token",
		Management: true, CreatedAt: timestamppb.New(now),
	})
	if err != nil {
		return nil, fmt.Errorf("encode token: %w", err)
	}
	row := &registryv1.RecordKey{Table: table, Key: accessor}
	return &registryv1.Command{
		Operations: []*registryv1.Operation{{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
			Table: table, Key: accessor, Value: value, OriginDatacenter: datacenter,
		}}}},
		Conditions: []*registryv1.Condition{{Row: row, Reason: "TOKEN_EXISTS"}},
	}, nil
}
