package acl

import (
	"cmp"
	"slices"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Question is what somebody wants to know about a token.
type Question struct {
	Resource, Access, Name string
}

// Need understands a question. A bare KV key is written, and deleted, locally.
func (q Question) Need() (Need, error) {
	resource, err := ParseResource("resource", q.Resource)
	if err != nil {
		return Need{}, err
	}
	access, err := ParseAccess("access", q.Access)
	if err != nil {
		return Need{}, err
	}
	n := Need{Resource: resource, Name: q.Name, Access: access}
	if scope, bare := cutScope(n.Name); resource == KV && scope == everywhere && bare != "" && access&(Write|Delete) != 0 {
		n.Name = record.LocalPrefix + bare
	}
	return n, checkPattern("name", n.Name)
}

// Accessor returns what the token of an accessor id may do. NotFound when the datacenter knows
// none.
func (v *View) Accessor(accessor string) (*Authorizer, error) {
	v.mu.RLock()
	e, generation := v.byID[accessor], v.generation
	v.mu.RUnlock()
	switch {
	case e != nil:
		return v.authorizer(e, generation)
	case accessor == AnonymousAccessor:
		return &Authorizer{token: &registryv1.ACLToken{AccessorId: accessor}}, nil
	}
	return nil, notFound(tokenTable, accessor)
}

// Explain reports whether an authorizer meets a need, and which rules say so.
func (v *View) Explain(a *Authorizer, n Need) *registryv1.ExplainResponse {
	out := &registryv1.ExplainResponse{Allowed: a.Allows(n), AccessorId: a.Accessor(), Permission: n.String()}
	if a.Management() {
		out.Reason = "a management token may do everything"
		return out
	}
	if scope, bare := cutScope(n.Name); n.Resource == KV && scope == everywhere {
		n = a.either(n, bare)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, s := range a.sources {
		p := v.policies[s.policy]
		if p == nil || p.value.GetModifyIndex() != s.index {
			continue // It changed since: whoever asks again hears of it.
		}
		for i, r := range p.rules {
			if denies := r.grants == deny; r.about(n) && (denies || r.grants&n.Access != 0) {
				out.Matches = append(out.Matches, &registryv1.ExplainMatch{
					Policy: s.policy, Role: s.role, Rule: uint32(i), Definition: p.value.GetRules()[i], Denies: denies, //nolint:gosec // at most maxRules
				})
			}
		}
	}
	slices.SortStableFunc(out.Matches, func(a, b *registryv1.ExplainMatch) int { return cmp.Compare(rank(a), rank(b)) })
	denied := len(out.GetMatches()) > 0 && out.GetMatches()[0].GetDenies()
	for _, m := range out.GetMatches() {
		m.Decisive = m.GetDenies() == denied
	}
	switch {
	case out.GetAllowed():
		out.Reason = "a rule allows it and none denies it"
	case denied:
		out.Reason = "a rule denies it, which wins over every rule that allows"
	default:
		out.Reason = "no rule allows it"
	}
	return out
}

func rank(m *registryv1.ExplainMatch) int {
	if m.GetDenies() {
		return 0
	}
	return 1
}

// either returns a need for a bare key as one in the scope that allows it, the local one if none
// does.
func (a *Authorizer) either(n Need, bare string) Need {
	local, global := n, n
	local.Name, global.Name = record.LocalPrefix+bare, record.GlobalPrefix+bare
	if !a.Allows(local) && a.Allows(global) {
		return global
	}
	return local
}

// about reports whether a rule is about what a need names.
func (r *rule) about(n Need) bool {
	scope, name := everywhere, n.Name
	if n.Resource == KV {
		scope, name = cutScope(n.Name)
	}
	return r.resource == n.Resource && r.matches(scope, name)
}
