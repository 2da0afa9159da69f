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

// narrow answers the scopes of a key that the call's token may read: a bare key means whichever it may.
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

// sees answers which stored names of a resource the call's token may use, nil when it may use all, and
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
	named := acl.Need{Name: f.Prefix, Access: acl.Read, Below: !f.Exact}
	anything := acl.Need{Access: acl.Read, Below: true}
	with := func(need acl.Need, resource acl.Resource) acl.Need {
		need.Resource = resource
		return need
	}
	switch f.Table {
	case registryv1.Table_TABLE_KV:
		if !f.Exact && !strings.Contains(f.Prefix, "/") {
			named = anything // It ends before the scope does.
		}
		return []acl.Need{with(named, acl.KV)}
	case registryv1.Table_TABLE_NODE:
		return []acl.Need{with(named, acl.Node)}
	case registryv1.Table_TABLE_FAILOVER_POLICY:
		return []acl.Need{with(named, acl.Service)}
	case registryv1.Table_TABLE_SERVICE: // Its keys are ids, which say nothing of whose they are.
		if name, known := c.Catalog.ServiceName(f.Prefix); known && f.Exact {
			return []acl.Need{{Resource: acl.Service, Name: name, Access: acl.Read}}
		}
		return []acl.Need{with(anything, acl.Service)}
	case registryv1.Table_TABLE_CHECK:
		return []acl.Need{with(anything, acl.Service), with(anything, acl.Node)}
	}
	need, _ := c.rowNeed(&registryv1.Record{Table: f.Table})
	return []acl.Need{need}
}

// rowNeed answers what reading a watched row takes. A tombstone of a service or check holds an id and
// nothing else, and whoever saw the row must hear that it is gone: it takes nothing.
func (c *Core) rowNeed(row *registryv1.Record) (acl.Need, bool) {
	read := func(resource acl.Resource, name string) (acl.Need, bool) {
		return acl.Need{Resource: resource, Name: name, Access: acl.Read}, true
	}
	switch row.GetTable() {
	case registryv1.Table_TABLE_KV:
		return read(acl.KV, row.GetKey())
	case registryv1.Table_TABLE_NODE:
		return read(acl.Node, row.GetKey())
	case registryv1.Table_TABLE_FAILOVER_POLICY:
		return read(acl.Service, row.GetKey())
	case registryv1.Table_TABLE_SERVICE:
		value := &registryv1.Service{}
		if row.GetDeleted() || proto.Unmarshal(row.GetValue(), value) != nil {
			return acl.Need{}, false
		}
		return read(acl.Service, value.GetName())
	case registryv1.Table_TABLE_CHECK:
		value := &registryv1.Check{}
		if row.GetDeleted() || proto.Unmarshal(row.GetValue(), value) != nil {
			return acl.Need{}, false
		}
		if value.GetNode() != "" {
			return read(acl.Node, value.GetNode())
		}
		name, known := c.Catalog.ServiceName(value.GetServiceId())
		if !known {
			name = value.GetServiceId() // Its service is gone, and so is the check in a moment.
		}
		return read(acl.Service, name)
	case registryv1.Table_TABLE_CA_ROOT, registryv1.Table_TABLE_FEDERATION, registryv1.Table_TABLE_DATACENTER:
		return read(acl.Federation, "")
	case registryv1.Table_TABLE_REPLICATION_CURSOR:
		return read(acl.Operator, "replication")
	}
	return acl.Need{Resource: acl.ACL, Access: acl.Read}, true // Only management tokens see what is not listed.
}
