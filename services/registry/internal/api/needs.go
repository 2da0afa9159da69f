package api

import (
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/record"
)

// NeedsOfGet answers what reading a key takes: a bare key is good in whichever scope it may be read.
func NeedsOfGet(r *registryv1.GetRequest) []acl.Need {
	return []acl.Need{{Resource: acl.KV, Name: scoped(r.GetKey(), r.GetScope(), false), Access: acl.Read}}
}

// NeedsOfSet answers what writing a key takes.
func NeedsOfSet(r *registryv1.SetRequest) []acl.Need {
	return []acl.Need{{Resource: acl.KV, Name: scoped(r.GetKey(), r.GetScope(), true), Access: acl.Write}}
}

// NeedsOfDelete answers what deleting a key takes, or with recurse everything below one.
func NeedsOfDelete(r *registryv1.DeleteRequest) []acl.Need {
	return []acl.Need{{Resource: acl.KV, Name: scoped(r.GetKey(), r.GetScope(), true), Access: acl.Delete, Below: r.GetRecurse()}}
}

// scoped answers a key with its scope in front, as it is stored. A malformed one keeps its form: the
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
