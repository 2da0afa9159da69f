package federation

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused joins.
const (
	// ReasonTokenExists says that a join token of that id is kept already.
	ReasonTokenExists = "JOIN_TOKEN_EXISTS"
	// ReasonTokenNotFound says that no join token of that id is kept.
	ReasonTokenNotFound = "JOIN_TOKEN_NOT_FOUND"
	// ReasonTokenExpired says that the join token came too late.
	ReasonTokenExpired = "JOIN_TOKEN_EXPIRED"
	// ReasonTokenUsed says that the join token has admitted a datacenter already.
	ReasonTokenUsed = "JOIN_TOKEN_USED"
	// ReasonTokenForeign says that the join token admits a datacenter of another name.
	ReasonTokenForeign = "JOIN_TOKEN_FOR_ANOTHER"
	// ReasonNameTaken says that a member of the federation has that name.
	ReasonNameTaken = "DATACENTER_EXISTS"
)

const (
	maxTokenID           = 128
	joinTokenRemedy      = "make a new one in the primary with `konsulctl datacenter token create --datacenter NAME`"
	tokens               = registryv1.Table_TABLE_JOIN_TOKEN
	datacenters          = registryv1.Table_TABLE_DATACENTER
	roots                = registryv1.Table_TABLE_CA_ROOT
	ed25519PublicKeySize = 32
)

// Joiner makes the commands of the ca's side of joining.
type Joiner struct {
	// Datacenter is the own one.
	Datacenter string
	seen       func(requestID string) bool
}

// NewJoiner returns a Joiner of a datacenter. seen reports whether a request was applied before.
func NewJoiner(datacenter string, seen func(requestID string) bool) *Joiner {
	return &Joiner{Datacenter: datacenter, seen: seen}
}

// PutToken returns the command that keeps a fresh join token.
func (j *Joiner) PutToken(req *registryv1.PutJoinTokenRequest) (*registryv1.Command, error) {
	token := req.GetToken()
	switch {
	case token.GetId() == "" || len(token.GetId()) > maxTokenID:
		return nil, fault.Invalid("token.id", "has %d bytes; 1 to %d are allowed", len(token.GetId()), maxTokenID)
	case len(token.GetPublicKey()) != ed25519PublicKeySize:
		return nil, fault.Invalid("token.public_key", "has %d bytes; an Ed25519 key has %d", len(token.GetPublicKey()), ed25519PublicKeySize)
	case !config.ValidDatacenter(token.GetDatacenter()):
		return nil, fault.Invalid("token.datacenter", "%q is no datacenter name", token.GetDatacenter()).WithRemedy("use a DNS label such as us-west")
	case token.GetExpiresAt() == nil:
		return nil, fault.Invalid("token.expires_at", "is missing")
	}
	op, err := record.Put(tokens, token.GetId(), j.Datacenter, token)
	if err != nil {
		return nil, err
	}
	return &registryv1.Command{
		RequestId:  req.GetRequestId(),
		Operations: []*registryv1.Operation{op},
		Conditions: []*registryv1.Condition{
			record.When(tokens, token.GetId(), 0, ReasonTokenExists),
			record.When(datacenters, token.GetDatacenter(), 0, ReasonNameTaken),
		},
	}, nil
}

// GetToken reads a join token. NotFound when there is none of that id.
func GetToken(r record.Reader, id string) (*registryv1.JoinToken, error) {
	token, _, err := getToken(r, id)
	return token, err
}

func getToken(r record.Reader, id string) (*registryv1.JoinToken, uint64, error) {
	token := &registryv1.JoinToken{}
	row, err := record.Find(r, tokens, id, token)
	if err != nil {
		return nil, 0, err
	}
	if row == nil {
		return nil, 0, fault.New(fault.NotFound, ReasonTokenNotFound, "there is no join token %q", id).WithField("token_id").WithRemedy(joinTokenRemedy)
	}
	return token, row.GetModifyIndex(), nil
}

// Admit returns the command that consumes a join token and records the new member, so that a token
// works once whoever races.
func (j *Joiner) Admit(r record.Reader, req *registryv1.AdmitDatacenterRequest, now time.Time) (*registryv1.Command, error) {
	token, tokenIndex, err := getToken(r, req.GetTokenId())
	if err != nil {
		return nil, err
	}
	dc := proto.CloneOf(req.GetDatacenter())
	switch {
	case dc.GetName() == "" || dc.GetId() == "":
		return nil, fault.Invalid("datacenter", "needs a name and an id")
	case dc.GetName() != token.GetDatacenter():
		return nil, fault.New(fault.FailedPrecondition, ReasonTokenForeign, "the token admits %q, not %q", token.GetDatacenter(), dc.GetName()).
			WithField("datacenter.name").WithRemedy("set server.datacenter to the token's, or " + joinTokenRemedy)
	case token.GetExpiresAt().AsTime().Before(now):
		return nil, fault.New(fault.FailedPrecondition, ReasonTokenExpired, "the join token expired at %s", token.GetExpiresAt().AsTime().Format(time.RFC3339)).
			WithField("token_id").WithRemedy(joinTokenRemedy)
	}
	if token.GetUsedAt() != nil && !j.repeats(req) {
		return nil, used()
	}
	token.UsedAt = timestamppb.New(now)
	if dc.GetJoinedAt() == nil {
		dc.JoinedAt = timestamppb.New(now)
	}
	consume, err := record.Put(tokens, token.GetId(), j.Datacenter, token)
	if err != nil {
		return nil, err
	}
	admit, err := record.Put(datacenters, dc.GetName(), j.Datacenter, dc)
	if err != nil {
		return nil, err
	}
	return &registryv1.Command{
		RequestId:  req.GetRequestId(),
		Operations: []*registryv1.Operation{consume, admit},
		Conditions: []*registryv1.Condition{
			record.When(tokens, token.GetId(), tokenIndex, ReasonTokenUsed),
			record.When(datacenters, dc.GetName(), 0, ReasonNameTaken),
		},
	}, nil
}

// repeats reports whether a request was applied before: its outcome is then returned again.
func (j *Joiner) repeats(req *registryv1.AdmitDatacenterRequest) bool {
	return req.GetRequestId() != "" && j.seen(req.GetRequestId())
}

func used() error {
	return fault.New(fault.FailedPrecondition, ReasonTokenUsed, "the join token has been used").WithField("token_id").WithRemedy(joinTokenRemedy)
}

// Outcome returns the fault of a command that did not hold, nil if it did.
func Outcome(result *registryv1.CommandResult) error {
	key := result.GetFailedRow().GetKey()
	switch result.GetFailedReason() {
	case "":
		return nil
	case ReasonTokenUsed:
		return used()
	case ReasonNameTaken:
		return fault.New(fault.AlreadyExists, ReasonNameTaken, "%q is a member of the federation already", key).
			WithField("datacenter").WithRemedy("choose another name; names of members are never reused")
	case ReasonTokenExists:
		return fault.New(fault.AlreadyExists, ReasonTokenExists, "there is a join token %q already", key).WithField("token.id")
	case ReasonCursorMoved:
		return cursorMoved(key)
	}
	return fault.New(fault.Aborted, result.GetFailedReason(), "%s %q changed meanwhile", result.GetFailedRow().GetTable(), key)
}

// PublishRoots returns the command that makes trust anchors known, nil when they are.
func (j *Joiner) PublishRoots(r record.Reader, req *registryv1.PublishRootsRequest) (*registryv1.Command, error) {
	if len(req.GetRoots()) == 0 {
		return nil, fault.Invalid("roots", "are missing")
	}
	cmd := &registryv1.Command{RequestId: req.GetRequestId()}
	for i, root := range req.GetRoots() {
		if root.GetFingerprint() == "" || len(root.GetCertificate()) == 0 {
			return nil, fault.Invalid(fmt.Sprintf("roots[%d]", i), "needs a fingerprint and a certificate")
		}
		stored := &registryv1.CARoot{}
		if _, err := record.Find(r, roots, root.GetFingerprint(), stored); err != nil {
			return nil, err
		}
		if proto.Equal(stored, root) { // The root that is given has a fingerprint: an absent one is none.
			continue
		}
		op, err := record.Put(roots, root.GetFingerprint(), j.Datacenter, root)
		if err != nil {
			return nil, err
		}
		cmd.Operations = append(cmd.Operations, op)
	}
	if len(cmd.GetOperations()) == 0 {
		return nil, nil
	}
	return cmd, nil
}
