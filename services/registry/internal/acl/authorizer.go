package acl

import (
	"slices"
	"sync/atomic"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Authorizer returns what one token may do, as of the policies and roles it was compiled from. It
// is never changed: Refresh of the View returns its successor.
type Authorizer struct {
	token *registryv1.ACLToken
	// all allows everything.
	all   bool
	rules [ACL][scopes]ruleset
	// denials are kept apart for questions about what is below a prefix.
	denials, grants []rule

	// entry and generation say what it was compiled from.
	entry      *entry
	sources    []source
	generation atomic.Uint64
}

// ruleset finds the rules about a name. What several rules say of one pattern is added up.
type ruleset struct {
	exact  map[string]Access
	prefix map[string]Access
	// lengths are those of the prefixes, the shortest first.
	lengths []int
	globs   []globRule
}

type globRule struct {
	glob   glob
	grants Access
}

// Everything returns an authorizer that allows everything: that of a service that acts as itself,
// which the contracts let in.
func Everything() *Authorizer { return &Authorizer{all: true} }

// compile makes rules findable.
func compile(token *registryv1.ACLToken, rules []rule) *Authorizer {
	a := &Authorizer{token: token, all: token.GetManagement()}
	for _, r := range rules {
		a.rules[r.resource][r.scope].add(r)
		if r.grants == deny {
			a.denials = append(a.denials, r)
		} else {
			a.grants = append(a.grants, r)
		}
	}
	return a
}

func (s *ruleset) add(r rule) {
	switch r.kind {
	case exact:
		if s.exact == nil {
			s.exact = map[string]Access{}
		}
		s.exact[r.text] |= r.grants
	case prefix:
		if s.prefix == nil {
			s.prefix = map[string]Access{}
		}
		s.prefix[r.text] |= r.grants
		if i, found := slices.BinarySearch(s.lengths, len(r.text)); !found {
			s.lengths = slices.Insert(s.lengths, i, len(r.text))
		}
	default:
		s.globs = append(s.globs, globRule{r.glob, r.grants})
	}
}

// of adds up what the rules say of a name.
func (s *ruleset) of(name string) Access {
	says := s.exact[name]
	for _, length := range s.lengths {
		if length > len(name) {
			break
		}
		says |= s.prefix[name[:length]]
	}
	for i := range s.globs {
		if says&deny == 0 && s.globs[i].glob.match(name) {
			says |= s.globs[i].grants
		}
	}
	return says
}

// Accessor is the token's accessor id; empty when there is no token.
func (a *Authorizer) Accessor() string { return a.token.GetAccessorId() }

// Token is the token, without its hash's meaning to anyone; nil when there is none. It must not be
// changed.
func (a *Authorizer) Token() *registryv1.ACLToken { return a.token }

// Management says that everything is allowed.
func (a *Authorizer) Management() bool { return a.all }

// Allows reports whether a need is met.
func (a *Authorizer) Allows(n Need) bool { return a.across(n, a.in) }

// across asks about a need in each scope that its name may mean, until one has a yes.
func (a *Authorizer) across(n Need, ask func(n Need, scope scoped, name string) bool) bool {
	switch {
	case a.all:
		return true
	case n.Resource >= ACL:
		return false
	case n.Resource != KV:
		return ask(n, everywhere, n.Name)
	}
	scope, bare := cutScope(n.Name)
	if scope == everywhere {
		return ask(n, inLocal, bare) || ask(n, inGlobal, bare)
	}
	return ask(n, scope, bare)
}

func (a *Authorizer) in(n Need, scope scoped, name string) bool {
	if n.Below {
		return a.below(n, scope, name)
	}
	sets := &a.rules[n.Resource]
	says := sets[everywhere].of(name)
	if scope != everywhere {
		says |= sets[scope].of(name)
	}
	return says&deny == 0 && says&n.Access != 0
}

// below is generous to those who deny: a glob that could match something there is taken to do so.
func (a *Authorizer) below(n Need, scope scoped, name string) bool {
	for i := range a.denials {
		if d := &a.denials[i]; d.resource == n.Resource && d.touches(scope, name) {
			return false
		}
	}
	for i := range a.grants {
		if g := &a.grants[i]; g.resource == n.Resource && g.grants&n.Access != 0 && g.covers(scope, name) {
			return true
		}
	}
	return false
}

// AllowsSome reports whether the need may be met for anything whose name begins with n.Name. It is
// generous to rules that allow: a glob counts whenever it cannot be ruled out by how its matches
// begin.
func (a *Authorizer) AllowsSome(n Need) bool { return a.across(n, a.some) }

func (a *Authorizer) some(n Need, scope scoped, below string) bool {
	n.Below = false
	return slices.ContainsFunc(a.grants, func(g rule) bool {
		if g.resource != n.Resource || g.grants&n.Access == 0 || !g.touches(scope, below) {
			return false
		}
		if g.kind == exact {
			return a.in(n, scope, g.text)
		}
		head := g.text
		if g.kind == wild {
			head, _ = g.glob.head()
		}
		if len(head) < len(below) {
			head = below
		}
		return !slices.ContainsFunc(a.denials, func(d rule) bool { return d.resource == n.Resource && d.covers(scope, head) })
	})
}

// Check returns nil when every need is met, else a PermissionDenied fault that names the first that
// is not.
func (a *Authorizer) Check(needs ...Need) error {
	for _, n := range needs {
		if !a.Allows(n) {
			return a.denied(n)
		}
	}
	return nil
}

func (a *Authorizer) denied(n Need) error {
	remedy := "give one of its policies a rule that allows it; `konsulctl acl explain` tells what decides"
	if n.Resource >= ACL {
		remedy = "use a management token"
	}
	return fault.New(fault.PermissionDenied, ReasonPermissionDenied, "token %s lacks %s", a.Accessor(), n).
		WithMeta("permission", n.String()).WithMeta("accessor", a.Accessor()).WithRemedy(remedy)
}
