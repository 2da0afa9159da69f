package api

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
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

// seesSome returns PermissionDenied when a token may read none of the rows that a watch names: it would wait for ever in
// silence. Where that depends on rows that are not there yet it may.
func (c *Core) seesSome(a *acl.Authorizer, filters []watch.Filter) error {
	if a == nil || a.Management() {
		return nil
	}
	var lacking []acl.Need
	for _, f := range filters {
		for _, need := range c.filterNeeds(f) {
			if need.Below && a.AllowsSome(need) || !need.Below && a.Allows(need) {
				return nil
			}
			lacking = append(lacking, need)
		}
	}
	if len(lacking) > 1 && lacking[0].Resource == acl.KV { // A bare key, whose scopes are watched both.
		_, lacking[0].Name, _ = strings.Cut(lacking[0].Name, "/")
	}
	return a.Check(lacking[:min(1, len(lacking))]...)
}

// filterNeeds returns the permissions of which one shows rows of a filter.
func (c *Core) filterNeeds(f watch.Filter) []acl.Need {
	t := record.Tables().Of(f.Table)
	resource := acl.ResourceNamed(t.ACL.Resource)
	anything := acl.Need{Resource: resource, Access: acl.Read, Below: true}
	switch t.ACL.Named {
	case record.NamedByKey:
		if t.Scope == record.GlobalPrefixed && !f.Exact && !strings.Contains(f.Prefix, "/") {
			return []acl.Need{anything} // It ends before the scope does.
		}
		return []acl.Need{{Resource: resource, Name: f.Prefix, Access: acl.Read, Below: !f.Exact}}
	case record.NamedByValue:
		if f.Table == registryv1.Table_TABLE_CHECK {
			return []acl.Need{anything, {Resource: acl.Node, Access: acl.Read, Below: true}}
		}
		// The keys of services are ids, which say nothing of whose they are.
		if name, known := c.Catalog.ServiceName(f.Prefix); known && f.Exact {
			return []acl.Need{{Resource: resource, Name: name, Access: acl.Read}}
		}
		return []acl.Need{anything}
	case record.NamedAlike:
	}
	return []acl.Need{{Resource: resource, Name: t.ACL.Name, Access: acl.Read}}
}

// rowNeed returns what reading a watched row takes. A tombstone of a row that its value names holds an
// id and nothing else, and whoever saw the row must hear that it is gone: it takes nothing.
func (c *Core) rowNeed(row *registryv1.Record) (acl.Need, bool) {
	t := record.Tables().Of(row.GetTable())
	need := acl.Need{Resource: acl.ResourceNamed(t.ACL.Resource), Name: t.ACL.Name, Access: acl.Read}
	switch t.ACL.Named {
	case record.NamedByKey:
		need.Name = row.GetKey()
	case record.NamedByValue:
		value := t.Value()
		if row.GetDeleted() || proto.Unmarshal(row.GetValue(), value) != nil {
			return acl.Need{}, false
		}
		need.Resource, need.Name = c.nameIn(value)
	case record.NamedAlike:
	}
	return need, true
}

// nameIn returns what a value is the name of, for the rules of access control.
func (c *Core) nameIn(value proto.Message) (acl.Resource, string) {
	switch value := value.(type) {
	case *registryv1.Service:
		return acl.Service, value.GetName()
	case *registryv1.Check:
		if value.GetNode() != "" {
			return acl.Node, value.GetNode()
		}
		name, known := c.Catalog.ServiceName(value.GetServiceId())
		if !known {
			name = value.GetServiceId() // Its service is gone, and so is the check in a moment.
		}
		return acl.Service, name
	}
	return acl.ACL, ""
}
