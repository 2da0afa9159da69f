package api

import (
	"context"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
)

// Sees returns which stored names of a resource the call's token may use, nil when it may use all,
// and whether anything was left out.
func Sees(ctx context.Context, resource acl.Resource, access acl.Access, filtered *bool) func(name string) bool {
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

// Visible leaves out what the call's token may not list, and says so in meta. The list itself stays
// as it is.
func Visible[T any](ctx context.Context, resource acl.Resource, list []T, name func(T) string, meta *registryv1.QueryMeta) []T {
	filtered := false
	may := Sees(ctx, resource, acl.List, &filtered)
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
