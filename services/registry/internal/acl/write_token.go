package acl

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Stored is a token as it is at rest, with where it is.
type Stored struct {
	Token *registryv1.ACLToken
	Row   *registryv1.Record
}

// Shown returns the token as people see it.
func (s Stored) Shown() *registryv1.Token {
	t := s.Token
	return &registryv1.Token{
		AccessorId: t.GetAccessorId(), Description: t.GetDescription(), Policies: t.GetPolicies(), Roles: t.GetRoles(),
		Management: t.GetManagement(), Local: t.GetLocal(), CreatedAt: t.GetCreatedAt(), ExpiresAt: t.GetExpiresAt(),
		CreateIndex: s.Row.GetCreateIndex(), ModifyIndex: s.Row.GetModifyIndex(), OriginDatacenter: s.Row.GetOriginDatacenter(),
	}
}

// Made returns the token that a command made, or the fault of a repeated request whose first try
// made another one, because its secret was made up anew meanwhile: then there is none of this
// secret.
func Made(r record.Reader, token *registryv1.ACLToken) (Stored, error) {
	stored, err := Token(r, token.GetAccessorId())
	if fault.ReasonOf(err) == ReasonTokenNotFound {
		return Stored{}, fault.New(fault.FailedPrecondition, ReasonSecretLost, "an earlier try of this request made a token whose secret is not kept").
			WithRemedy("find it with `konsulctl acl token list`, delete it, and make another one with a new request id")
	}
	return stored, err
}

// Token returns a stored token. The anonymous one is always there, with nothing until it is given
// something.
func Token(r record.Reader, accessor string) (Stored, error) {
	for _, key := range []string{accessor, record.LocalPrefix + accessor} {
		t := &registryv1.ACLToken{}
		if row, err := record.Find(r, tokenTable, key, t); err != nil || row != nil {
			return Stored{t, row}, err
		}
	}
	if accessor == AnonymousAccessor {
		return Stored{Token: &registryv1.ACLToken{AccessorId: accessor, Description: "requests without a token"}}, nil
	}
	return Stored{}, notFound(tokenTable, accessor)
}

// Tokens returns every stored token, global ones first, by accessor id.
func Tokens(r record.Reader) ([]Stored, error) {
	var out []Stored
	err := record.Each(r, tokenTable, record.ScanOptions{}, func(row *registryv1.Record) error {
		t := &registryv1.ACLToken{}
		out = append(out, Stored{t, row})
		return record.Decode(row, t)
	})
	return out, err
}

// CreateToken returns the command that makes a token of the request's secret.
func (w Writer) CreateToken(r record.Reader, req *registryv1.CreateTokenRequest, now time.Time) (*registryv1.Command, *registryv1.ACLToken, error) {
	if err := checkSecret("secret", req.GetSecret()); err != nil {
		return nil, nil, err
	}
	expires, err := expiry(req.GetExpiresAt(), req.GetTtl(), now)
	if err != nil {
		return nil, nil, err
	}
	token := &registryv1.ACLToken{
		AccessorId: accessorFor(req.GetSecret()), SecretHash: Hash(req.GetSecret()), Description: req.GetDescription(),
		Management: req.GetManagement(), CreatedAt: timestamppb.New(now), Local: req.GetLocal(), ExpiresAt: expires,
	}
	cmd, err := w.putToken(r, token, req.GetPolicies(), req.GetRoles(), record.When(tokenTable, tokenKey(token.GetAccessorId(), req.GetLocal()), 0, ReasonTokenExists))
	return cmd, token, err
}

func expiry(at *timestamppb.Timestamp, ttl *durationpb.Duration, now time.Time) (*timestamppb.Timestamp, error) {
	const remedy = "name a moment to come, or leave it out"
	switch {
	case at != nil && ttl != nil:
		return nil, fault.Invalid("ttl", "does not go with expires_at").WithRemedy("drop one of the two")
	case ttl != nil && (!ttl.IsValid() || ttl.AsDuration() <= 0):
		return nil, fault.Invalid("ttl", "%v is no time to live", ttl.AsDuration()).WithRemedy("write a duration such as 24h, or leave it out")
	case ttl != nil:
		return timestamppb.New(now.Add(ttl.AsDuration())), nil
	case at != nil && (!at.IsValid() || !at.AsTime().After(now)):
		return nil, fault.Invalid("expires_at", "is not in the future").WithRemedy(remedy)
	}
	return at, nil
}

func (w Writer) putToken(r record.Reader, token *registryv1.ACLToken, policies, roles []string, condition *registryv1.Condition) (*registryv1.Command, error) {
	if err := checkDescription("description", token.GetDescription()); err != nil {
		return nil, err
	}
	var err error
	if token.Policies, err = links(r, "policies", policyTable, policies); err != nil {
		return nil, err
	}
	if token.Roles, err = links(r, "roles", roleTable, roles); err != nil {
		return nil, err
	}
	op, err := record.Put(tokenTable, tokenKey(token.GetAccessorId(), token.GetLocal()), w.Datacenter, token)
	return &registryv1.Command{Operations: []*registryv1.Operation{op}, Conditions: []*registryv1.Condition{condition}}, err
}

// UpdateToken returns the command that changes what a token has.
func (w Writer) UpdateToken(r record.Reader, req *registryv1.UpdateTokenRequest, now time.Time) (*registryv1.Command, error) {
	old, err := Token(r, req.GetAccessorId())
	if err != nil {
		return nil, err
	}
	if req.GetAccessorId() == AnonymousAccessor && (req.GetManagement() || req.GetExpiresAt() != nil) {
		return nil, fault.New(fault.InvalidArgument, ReasonAnonymous, "the anonymous token can neither manage nor expire").
			WithField("accessor_id").WithRemedy("give it policies or roles")
	}
	// Saying the same moment again is fine once it has passed: only what is new must lie ahead.
	expires := req.GetExpiresAt()
	if !proto.Equal(expires, old.Token.GetExpiresAt()) {
		if expires, err = expiry(expires, nil, now); err != nil {
			return nil, err
		}
	}
	token := proto.CloneOf(old.Token)
	token.Description, token.Management, token.ExpiresAt = req.GetDescription(), req.GetManagement(), expires
	condition := record.When(tokenTable, tokenKey(token.GetAccessorId(), token.GetLocal()), old.Row.GetModifyIndex(), ReasonMoved)
	if req.Cas != nil {
		condition.ModifyIndex, condition.Reason = req.GetCas(), record.ReasonCASMismatch
	}
	cmd, err := w.putToken(r, token, req.GetPolicies(), req.GetRoles(), condition)
	if err != nil || req.GetForce() || !keeps(old.Token) || keeps(token) {
		return cmd, err
	}
	return keepOne(r, cmd, old.Token)
}

// CloneToken returns the command that makes a token that has what another one has.
func (w Writer) CloneToken(r record.Reader, req *registryv1.CloneTokenRequest, now time.Time) (*registryv1.Command, *registryv1.ACLToken, error) {
	old, err := Token(r, req.GetAccessorId())
	if err != nil {
		return nil, nil, err
	}
	description := req.GetDescription()
	if description == "" {
		description = old.Token.GetDescription()
	}
	return w.CreateToken(r, &registryv1.CreateTokenRequest{
		Description: description, Policies: old.Token.GetPolicies(), Roles: old.Token.GetRoles(),
		Management: old.Token.GetManagement(), Local: old.Token.GetLocal(), Secret: req.GetSecret(),
	}, now)
}

// DeleteToken returns the command that revokes a token.
func (w Writer) DeleteToken(r record.Reader, accessor string, force bool) (*registryv1.Command, error) {
	if accessor == AnonymousAccessor {
		return nil, fault.New(fault.FailedPrecondition, ReasonAnonymous, "the anonymous token stands for requests without one and cannot be deleted").
			WithField("accessor_id").WithRemedy("take its policies and roles from it")
	}
	old, err := Token(r, accessor)
	if fault.ReasonOf(err) == ReasonTokenNotFound {
		// Whether it never was, or an earlier try of the same request deleted it, the outcome
		// tells.
		return &registryv1.Command{Operations: []*registryv1.Operation{record.Delete(tokenTable, accessor), record.Delete(tokenTable, tokenKey(accessor, true))}}, nil
	}
	if err != nil {
		return nil, err
	}
	cmd := Reap(old.Row)
	if force || !keeps(old.Token) {
		return cmd, nil
	}
	return keepOne(r, cmd, old.Token)
}

// keeps reports whether a token keeps a federation manageable: it may do everything everywhere, for
// good.
func keeps(t *registryv1.ACLToken) bool {
	return t.GetManagement() && !t.GetLocal() && t.GetExpiresAt() == nil
}

// keepOne makes a command that takes one management token away depend on another one that stays, so
// that two such commands cannot take each other's.
func keepOne(r record.Reader, cmd *registryv1.Command, goes *registryv1.ACLToken) (*registryv1.Command, error) {
	all, err := Tokens(r)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Token.GetAccessorId() != goes.GetAccessorId() && keeps(s.Token) {
			cmd.Conditions = append(cmd.Conditions, record.When(tokenTable, s.Row.GetKey(), s.Row.GetModifyIndex(), ReasonMoved))
			return cmd, nil
		}
	}
	return nil, fault.New(fault.FailedPrecondition, ReasonLastManagement, "%s is the last global management token that does not expire", goes.GetAccessorId()).
		WithField("accessor_id").WithRemedy("make another one first, or force; without one only registry.initial_management_token_file or a bootstrap reset lets anyone in again")
}

// Reap returns the command that deletes a token, if its row is still as it was seen.
func Reap(row *registryv1.Record) *registryv1.Command {
	return &registryv1.Command{
		Operations: []*registryv1.Operation{record.Delete(tokenTable, row.GetKey())},
		Conditions: []*registryv1.Condition{record.When(tokenTable, row.GetKey(), row.GetModifyIndex(), ReasonMoved)},
	}
}
