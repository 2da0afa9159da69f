package acl

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Limits of a policy.
const (
	maxRules        = 1000
	maxPatternBytes = record.MaxKeyBytes + len(record.GlobalPrefix)
)

// scoped says in which scope of the KV store a pattern holds; other resources have none.
type scoped uint8

const (
	everywhere scoped = iota
	inLocal
	inGlobal
	scopes
)

// rule is a rule that has been understood.
type rule struct {
	resource Resource
	scope    scoped
	kind     kind
	// text is the exact name or the prefix.
	text   string
	glob   glob
	grants Access
}

type kind uint8

const (
	exact kind = iota
	prefix
	wild
)

// parseRule understands one rule of a policy. Its faults name the rule's place and the field.
func parseRule(i int, r *registryv1.ACLRule) (rule, error) {
	at := func(field string) string { return fmt.Sprintf("rules[%d].%s", i, field) }
	resource, err := ParseResource(at("resource"), r.GetResource())
	if err != nil {
		return rule{}, err
	}
	parsed := rule{resource: resource, kind: prefix}
	if parsed.grants, err = parseGrants(at("access"), r.GetAccess()); err != nil {
		return rule{}, err
	}
	field, pattern := "", ""
	switch m := r.GetMatch().(type) {
	case *registryv1.ACLRule_Exact:
		field, pattern, parsed.kind = "exact", m.Exact, exact
		if pattern == "" {
			return rule{}, fault.Invalid(at(field), "is empty").WithRemedy("name one " + r.GetResource() + ", or leave it out for all of them")
		}
	case *registryv1.ACLRule_Prefix:
		field, pattern = "prefix", m.Prefix
	case *registryv1.ACLRule_Glob:
		field, pattern, parsed.kind = "glob", m.Glob, wild
		if pattern == "" {
			return rule{}, fault.Invalid(at(field), "is empty").WithRemedy("write ** for everything, or leave it out")
		}
	}
	if err := checkPattern(at(field), pattern); err != nil {
		return rule{}, err
	}
	if resource == KV {
		parsed.scope, pattern = cutScope(pattern)
	}
	parsed.text = pattern
	if parsed.kind != wild {
		return parsed, nil
	}
	if parsed.glob, err = parseGlob(at(field), pattern); err != nil {
		return rule{}, err
	}
	if head, whole := parsed.glob.head(); whole {
		parsed.kind, parsed.text = prefix, head
	}
	return parsed, nil
}

// storedRule understands a rule of a stored policy, which a newer version may have written in the
// primary. One that allows in a way unknown here allows nothing; one that denies in a way unknown
// here denies the whole resource.
func storedRule(i int, r *registryv1.ACLRule) rule {
	parsed, err := parseRule(i, r)
	if err == nil && len(r.ProtoReflect().GetUnknown()) == 0 {
		return parsed
	}
	resource, err := ParseResource("resource", r.GetResource())
	if err != nil || !slices.Contains(r.GetAccess(), "deny") {
		return rule{resource: resources} // It keeps the places of the rules behind it.
	}
	return rule{resource: resource, kind: prefix, grants: deny}
}

func parseGrants(field string, words []string) (Access, error) {
	const remedy = "use list, read, write, delete, or deny alone"
	if len(words) == 0 {
		return 0, fault.Invalid(field, "is missing").WithRemedy(remedy)
	}
	var grants Access
	for _, word := range words {
		i := slices.IndexFunc(levels(), func(l level) bool { return l.name == word })
		if i < 0 {
			return 0, fault.Invalid(field, "%q is no access", word).WithRemedy(remedy)
		}
		grants |= levels()[i].implies
	}
	if grants&deny != 0 && grants != deny {
		return 0, fault.Invalid(field, "denies and allows at once").WithRemedy("write two rules; the one that denies wins")
	}
	return grants, nil
}

func checkPattern(field, pattern string) error {
	const remedy = "use printable UTF-8 of at most 519 bytes"
	switch {
	case len(pattern) > maxPatternBytes:
		return fault.Invalid(field, "is %d bytes long", len(pattern)).WithRemedy(remedy)
	case !utf8.ValidString(pattern):
		return fault.Invalid(field, "is not valid UTF-8").WithRemedy(remedy)
	case strings.ContainsFunc(pattern, unicode.IsControl):
		return fault.Invalid(field, "holds a control character").WithRemedy(remedy)
	}
	return nil
}

// cutScope takes the scope off the front of a key or a pattern of keys.
func cutScope(name string) (scoped, string) {
	if bare, ok := strings.CutPrefix(name, record.LocalPrefix); ok {
		return inLocal, bare
	}
	if bare, ok := strings.CutPrefix(name, record.GlobalPrefix); ok {
		return inGlobal, bare
	}
	return everywhere, name
}

// matches reports whether the rule is about a name, whose scope has been taken off.
func (r *rule) matches(scope scoped, name string) bool {
	if r.scope != everywhere && r.scope != scope {
		return false
	}
	switch r.kind {
	case exact:
		return r.text == name
	case prefix:
		return strings.HasPrefix(name, r.text)
	}
	return r.glob.match(name)
}

// touches reports whether the rule may be about something below a prefix. Of a glob it says so
// whenever it cannot be ruled out by how its matches begin.
func (r *rule) touches(scope scoped, below string) bool {
	if r.scope != everywhere && r.scope != scope {
		return false
	}
	switch r.kind {
	case exact:
		return strings.HasPrefix(r.text, below)
	case prefix:
		return strings.HasPrefix(r.text, below) || strings.HasPrefix(below, r.text)
	}
	head, _ := r.glob.head()
	return strings.HasPrefix(head, below) || strings.HasPrefix(below, head)
}

// covers reports whether the rule is about everything below a prefix.
func (r *rule) covers(scope scoped, below string) bool {
	return (r.scope == everywhere || r.scope == scope) && r.kind == prefix && strings.HasPrefix(below, r.text)
}
