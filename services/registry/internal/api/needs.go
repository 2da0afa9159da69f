package api

import (
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/record"
)

// Keyed is a request about one key, or about everything below one.
type Keyed interface {
	GetKey() string
	GetScope() registryv1.Scope
}

// NeedsOfKey returns what a call about a key takes. To read, a bare key is good in whichever scope it may be read.
func NeedsOfKey(r Keyed, access acl.Access) []acl.Need {
	all, _ := r.(interface{ GetRecurse() bool })
	return []acl.Need{{
		Resource: acl.KV, Name: scoped(r.GetKey(), r.GetScope(), access != acl.Read), Access: access, Below: all != nil && all.GetRecurse(),
	}}
}

// scoped returns a key with its scope in front, as it is stored. A malformed one keeps its form: the
// handler refuses it.
func scoped(name string, scope registryv1.Scope, write bool) string {
	key, err := record.ParseKey(name, scope)
	switch {
	case err != nil:
		return name
	case write:
		return key.In(key.Write())
	case key.Scope == registryv1.Scope_SCOPE_UNSPECIFIED:
		return key.Bare
	}
	return key.In(key.Scope)
}
