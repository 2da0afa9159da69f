package registry

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api/keys"
	"konsul.dev/services/registry/internal/api/locks"
	"konsul.dev/services/registry/internal/guard"
)

// serviceNames knows the catalogue's names.
type serviceNames interface {
	// ServiceName returns the service an instance belongs to, false when the instance is not known.
	ServiceName(id string) (name string, known bool)
	// ServicesOn returns the services that have an instance on a node.
	ServicesOn(node string) []string
}

// permissions are those that take more than a field of the request, by the names that the contracts
// use.
func permissions(services serviceNames) guard.Permissions {
	c := catalogued{services}
	return guard.Permissions{
		"key": keys.NeedsOfKey,
		"txn": func(_ context.Context, req proto.Message, _ acl.Access) ([]acl.Need, error) {
			r, ok := req.(*registryv1.TxnRequest)
			if !ok {
				return nobody(), nil
			}
			return keys.NeedsOfTxn(r)
		},
		"lock": guard.Permission(func(r interface{ GetName() string }, access acl.Access) []acl.Need {
			return locks.NeedsOfLock(r.GetName(), access)
		}),
		"instance": guard.Permission(func(r interface{ GetServiceId() string }, access acl.Access) []acl.Need {
			return one(acl.Service, c.nameOf(r.GetServiceId()), access)
		}),
		"instances": guard.Permission(c.registered),
		"on_node":   guard.Permission(c.onNode),
		"check":     guard.Permission(c.check),
		"checks": guard.Permission(func(r *registryv1.UpdateChecksRequest, access acl.Access) (out []acl.Need) {
			for _, update := range r.GetUpdates() {
				out = append(out, c.check(update, access)...)
			}
			return out
		}),
	}
}

func one(resource acl.Resource, name string, access acl.Access) []acl.Need {
	return []acl.Need{{Resource: resource, Name: name, Access: access}}
}

// nobody is what is asked about a request for which the contract names the wrong function.
func nobody() []acl.Need { return one(acl.ACL, "internal", acl.Write) }

// catalogued are permissions that depend on what is registered.
type catalogued struct{ services serviceNames }

// nameOf returns the service of an instance. One that is not known is taken for one of a service of
// that name, which is what an instance without an id gets; what is asked of it will not be found.
func (c catalogued) nameOf(id string) string {
	if name, known := c.services.ServiceName(id); known {
		return name
	}
	return id
}

// owned is a check: a node's own, or an instance's.
type owned interface {
	GetServiceId() string
	GetNode() string
}

// check is about the node, or the instance's service.
func (c catalogued) check(r owned, access acl.Access) []acl.Need {
	if node := r.GetNode(); node != "" {
		return one(acl.Node, node, access)
	}
	return one(acl.Service, c.nameOf(r.GetServiceId()), access)
}

// registered is about the services of a registration.
func (c catalogued) registered(req proto.Message, access acl.Access) (out []acl.Need) {
	switch r := req.(type) {
	case *registryv1.RegisterRequest:
		if r.GetService() != nil {
			out = c.taken(r.GetService(), access)
		}
	case *registryv1.RegisterNodeRequest:
		for _, s := range r.GetServices() {
			out = append(out, c.taken(s.GetService(), access)...)
		}
	default:
		return nobody()
	}
	return out
}

// taken is about a service, and about the one whose instance is replaced if that is another.
func (c catalogued) taken(service *registryv1.Service, access acl.Access) []acl.Need {
	out := one(acl.Service, service.GetName(), access)
	id := cmp.Or(service.GetId(), service.GetName())
	if old, known := c.services.ServiceName(id); known && old != service.GetName() {
		out = append(out, one(acl.Service, old, access)...)
	}
	return out
}

// onNode is about every service that has an instance on a node.
func (c catalogued) onNode(r interface{ GetNode() string }, access acl.Access) (out []acl.Need) {
	for _, name := range c.services.ServicesOn(r.GetNode()) {
		out = append(out, one(acl.Service, name, access)...)
	}
	return out
}
