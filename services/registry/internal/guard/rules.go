package guard

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/method"
	optionsv1 "konsul.dev/proto/gen/konsul/options/v1"
	"konsul.dev/services/registry/internal/acl"
)

// Permissions are functions that return the permissions that a request takes, for an access, by the
// names that the contracts use. A malformed request may be refused by one as the handler would.
type Permissions map[string]func(ctx context.Context, req proto.Message, access acl.Access) ([]acl.Need, error)

// Permission makes one of a function of one type of request.
func Permission[T any](needs func(req T, access acl.Access) []acl.Need) func(context.Context, proto.Message, acl.Access) ([]acl.Need, error) {
	return func(_ context.Context, req proto.Message, access acl.Access) ([]acl.Need, error) {
		typed, ok := req.(T)
		if !ok {
			return Closed(), nil // The contract names the wrong function; refuse.
		}
		return needs(typed, access), nil
	}
}

// Closed is what no token has but those that may do everything.
func Closed() []acl.Need { return []acl.Need{{Resource: acl.ACL, Name: "internal", Access: acl.Write}} }

// Rule is what a method asks of the caller's token.
type Rule struct {
	needs []need
	// audited calls are written to the audit log with their outcome; handlers of streams do so
	// themselves.
	audited bool
	// secret leads to what is made up where a request comes in.
	secret method.Path
}

// need is one permission, or what a function or a repeated field makes of it.
type need struct {
	acl.Need
	field method.Path
	by    func(context.Context, proto.Message, acl.Access) ([]acl.Need, error)
}

// Rules maps the full names of all methods. One that is missing is refused to every token.
type Rules map[string]Rule

// NewRules derives the rules from what the contracts say of methods. It fails when they name a
// function that is not there, or no such resource or access.
func NewRules(methods []method.Method, by Permissions) (Rules, error) {
	rules := Rules{}
	for _, m := range methods {
		rule := Rule{audited: m.GetAudited()}
		var err error
		if rule.needs, err = needsOf(m, by); err == nil && m.GetSecret() != "" {
			rule.secret, err = method.ParsePath(m.Descriptor.Input(), m.GetSecret())
		}
		if err != nil {
			return nil, fmt.Errorf("permissions of %s: %w", m.FullName, err)
		}
		rules[m.FullName] = rule
	}
	return rules, nil
}

func needsOf(m method.Method, by Permissions) ([]need, error) {
	var out []need
	if m.GetCheck() == optionsv1.TokenCheck_TOKEN_CHECK_PROGRAMS {
		out = append(out, need{Need: Closed()[0]})
	}
	for _, n := range m.GetNeeds() {
		made := need{Need: acl.Need{Name: n.GetName()}, by: by[n.GetBy()]}
		if n.GetBy() != "" && made.by == nil {
			return nil, fmt.Errorf("there is no function %q", n.GetBy())
		}
		var errs [3]error
		if n.GetAccess() != "" || made.by == nil {
			made.Access, errs[0] = acl.ParseAccess("access", n.GetAccess())
		}
		switch {
		case n.GetResource() == acl.ACL.String():
			made.Resource = acl.ACL
		case n.GetResource() != "" || made.by == nil:
			made.Resource, errs[1] = acl.ParseResource("resource", n.GetResource())
		}
		if n.GetField() != "" {
			made.field, errs[2] = method.ParsePath(m.Descriptor.Input(), n.GetField())
		}
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		out = append(out, made)
	}
	return out, nil
}

// Needs returns the permissions that a request takes; none: the handler asks for them itself,
// leaves out what the token may not see, or every token will do.
func (r Rule) Needs(ctx context.Context, request any) ([]acl.Need, error) {
	req, ok := request.(proto.Message)
	if !ok {
		return Closed(), nil
	}
	out := make([]acl.Need, 0, len(r.needs))
	for _, n := range r.needs {
		switch {
		case n.by != nil:
			more, err := n.by(ctx, req, n.Access)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		case n.field != nil:
			for _, value := range n.field.Values(req) {
				out = append(out, acl.Need{Resource: n.Resource, Name: n.Name + value, Access: n.Access})
			}
		default:
			out = append(out, n.Need)
		}
	}
	return out, nil
}

const secretBytes = 32

// complete makes up the secret of a request that makes a token and names none. It is done where the
// request came in, so that it stays the same however often the request is passed on.
func (r Rule) complete(request any) {
	req, ok := request.(proto.Message)
	if !ok || r.secret == nil || r.secret.Value(req) != "" {
		return
	}
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // It never fails: the program ends first.
	r.secret.Fill(req, hex.EncodeToString(b))
}
