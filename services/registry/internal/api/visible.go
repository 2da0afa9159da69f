package api

import (
	"context"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/record"
)

// narrow returns the scopes of a key that the call's token may read: a bare key means whichever it may.
func narrow(ctx context.Context, key record.Key) record.Key {
	a := acl.From(ctx)
	if key.Scope != registryv1.Scope_SCOPE_UNSPECIFIED || a.Management() {
		return key
	}
	may := func(scope registryv1.Scope) bool {
		return a.Allows(acl.Need{Resource: acl.KV, Name: key.In(scope), Access: acl.Read})
	}
	local, global := may(registryv1.Scope_SCOPE_LOCAL), may(registryv1.Scope_SCOPE_GLOBAL)
	switch {
	case local && !global:
		key.Scope = registryv1.Scope_SCOPE_LOCAL
	case global && !local:
		key.Scope = registryv1.Scope_SCOPE_GLOBAL
	}
	return key
}

// sees returns which stored names of a resource the call's token may use, nil when it may use all, and
// whether anything was left out.
func sees(ctx context.Context, resource acl.Resource, access acl.Access, filtered *bool) func(name string) bool {
	a := acl.From(ctx)
	if a.Management() {
		return nil
	}
	return func(name string) bool {
		if a.Allows(acl.Need{Resource: resource, Name: name, Access: access}) {
			return true
		}
		*filtered = true
		return false
	}
}

// visible leaves out what the call's token may not list, and says so in meta. The list itself stays as it is.
func visible[T any](ctx context.Context, resource acl.Resource, list []T, name func(T) string, meta *registryv1.QueryMeta) []T {
	filtered := false
	may := sees(ctx, resource, acl.List, &filtered)
	if may == nil {
		return list
	}
	var out []T
	for _, item := range list {
		if may(name(item)) {
			out = append(out, item)
		}
	}
	meta.ResultsFiltered = meta.GetResultsFiltered() || filtered
	return out
}
