package registry

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/method"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/kv"
)

// methods derives from the contracts how calls travel and what they take. It fails when the options of a
// method that this program serves are missing, contradict each other, or name a function that is not here.
func methods(tokens localTokens, services serviceNames) (forward.Routes, api.Rules, error) {
	served, err := method.Served(Name)
	if err != nil {
		return nil, nil, err
	}
	routes, err := forward.NewRoutes(served, forward.Functions{
		Kind:   map[string]func(proto.Message) forward.Kind{"batch": batched},
		Global: map[string]func(context.Context, proto.Message) bool{"key": globalKey, "txn": globalTxn, "token": globalToken(tokens)},
	})
	if err != nil {
		return nil, nil, err
	}
	rules, err := api.NewRules(served, permissions(services))
	return routes, rules, err
}

// batched returns how a batch of key-value calls travels.
func batched(req proto.Message) forward.Kind {
	if r, ok := req.(*registryv1.BatchRequest); ok && api.ReadsOnly(r) {
		return forward.Read
	}
	return forward.Proposal
}

// globalKey reports whether a KV write is global; a malformed one is refused where it came in.
func globalKey(ctx context.Context, req proto.Message) bool {
	r, ok := req.(kv.Request)
	if !ok {
		return false
	}
	key, err := kv.KeyOf(ctx, r)
	return err == nil && key.Write() == registryv1.Scope_SCOPE_GLOBAL
}

// globalTxn reports whether a transaction writes global keys.
func globalTxn(_ context.Context, req proto.Message) bool {
	r, ok := req.(*registryv1.TxnRequest)
	return ok && kv.TxnGlobal(r)
}

// localTokens knows which tokens are this datacenter's alone.
type localTokens interface {
	Local(accessor string) bool
}

// globalToken returns what reports whether a change is of a global token. One that names a datacenter is for a
// local token there.
func globalToken(tokens localTokens) func(context.Context, proto.Message) bool {
	return func(_ context.Context, req proto.Message) bool {
		switch r := req.(type) {
		case *registryv1.CreateTokenRequest:
			return !r.GetLocal()
		case interface {
			GetAccessorId() string
			GetDatacenter() string
		}:
			return r.GetDatacenter() == "" && !tokens.Local(r.GetAccessorId())
		}
		return false
	}
}

// serviceNames knows the catalogue's names.
type serviceNames interface {
	// ServiceName returns the service an instance belongs to, false when the instance is not known.
	ServiceName(id string) (name string, known bool)
	// ServicesOn returns the services that have an instance on a node.
	ServicesOn(node string) []string
}

// permissions are those that take more than a field of the request, by the names that the contracts use.
func permissions(services serviceNames) api.Permissions {
	one := func(resource acl.Resource, name string, access acl.Access) []acl.Need {
		return []acl.Need{{Resource: resource, Name: name, Access: access}}
	}
	// An instance that is not known is taken for one of a service of that name, which is what an instance
	// without an id gets; what is asked of it will not be found.
	nameOf := func(id string) string {
		if name, known := services.ServiceName(id); known {
			return name
		}
		return id
	}
	// Whose check it is: a node, or an instance's service.
	check := func(id, node string, access acl.Access) []acl.Need {
		if node != "" {
			return one(acl.Node, node, access)
		}
		return one(acl.Service, nameOf(id), access)
	}
	// The service of an instance, and the service whose instance is replaced if that is another.
	instance := func(service *registryv1.Service, access acl.Access) []acl.Need {
		out := one(acl.Service, service.GetName(), access)
		id := cmp.Or(service.GetId(), service.GetName())
		if old, known := services.ServiceName(id); known && old != service.GetName() {
			out = append(out, one(acl.Service, old, access)...)
		}
		return out
	}
	return api.Permissions{
		"key": api.NeedsOfKey,
		"txn": func(_ context.Context, req proto.Message, _ acl.Access) ([]acl.Need, error) {
			r, _ := req.(*registryv1.TxnRequest)
			return api.NeedsOfTxn(r)
		},
		"lock": api.Permission(func(r interface{ GetName() string }, access acl.Access) []acl.Need {
			return api.NeedsOfLock(r.GetName(), access)
		}),
		"instance": api.Permission(func(r interface{ GetServiceId() string }, access acl.Access) []acl.Need {
			return one(acl.Service, nameOf(r.GetServiceId()), access)
		}),
		"instances": api.Permission(func(r proto.Message, access acl.Access) (out []acl.Need) {
			switch r := r.(type) {
			case *registryv1.RegisterRequest:
				if r.GetService() != nil {
					out = instance(r.GetService(), access)
				}
			case *registryv1.RegisterNodeRequest:
				for _, s := range r.GetServices() {
					out = append(out, instance(s.GetService(), access)...)
				}
			}
			return out
		}),
		"on_node": api.Permission(func(r interface{ GetNode() string }, access acl.Access) (out []acl.Need) {
			for _, name := range services.ServicesOn(r.GetNode()) {
				out = append(out, one(acl.Service, name, access)...)
			}
			return out
		}),
		"check": api.Permission(func(r interface {
			GetServiceId() string
			GetNode() string
		}, access acl.Access,
		) []acl.Need {
			return check(r.GetServiceId(), r.GetNode(), access)
		}),
		"checks": api.Permission(func(r interface {
			GetUpdates() []*registryv1.CheckUpdate
		}, access acl.Access) (out []acl.Need) {
			for _, u := range r.GetUpdates() {
				out = append(out, check(u.GetServiceId(), u.GetNode(), access)...)
			}
			return out
		}),
	}
}
