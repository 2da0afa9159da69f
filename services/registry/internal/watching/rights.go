package watching

import (
	"strings"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// seesSome returns PermissionDenied when a token may read none of the rows that a watch names: it
// would wait for ever in silence. Where that depends on rows that are not there yet it may.
func seesSome(services *catalog.View, a *acl.Authorizer, filters []watch.Filter) error {
	if a == nil || a.Management() {
		return nil
	}
	var lacking []acl.Need
	for _, f := range filters {
		for _, need := range filterNeeds(services, f) {
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
func filterNeeds(services *catalog.View, f watch.Filter) []acl.Need {
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
		if name, known := services.ServiceName(f.Prefix); known && f.Exact {
			return []acl.Need{{Resource: resource, Name: name, Access: acl.Read}}
		}
		return []acl.Need{anything}
	case record.NamedAlike:
	}
	return []acl.Need{{Resource: resource, Name: t.ACL.Name, Access: acl.Read}}
}

// rowNeed returns what reading a watched row takes. A tombstone of a row that its value names holds
// an id and nothing else, and whoever saw the row must hear that it is gone: it takes nothing.
func rowNeed(services *catalog.View, row *registryv1.Record) (acl.Need, bool) {
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
		need.Resource, need.Name = nameIn(services, value)
	case record.NamedAlike:
	}
	return need, true
}

// nameIn returns what a value is the name of, for the rules of access control.
func nameIn(services *catalog.View, value proto.Message) (acl.Resource, string) {
	switch value := value.(type) {
	case *registryv1.Service:
		return acl.Service, value.GetName()
	case *registryv1.Check:
		if value.GetNode() != "" {
			return acl.Node, value.GetNode()
		}
		name, known := services.ServiceName(value.GetServiceId())
		if !known {
			name = value.GetServiceId() // Its service is gone, and so is the check in a moment.
		}
		return acl.Service, name
	}
	return acl.ACL, ""
}
