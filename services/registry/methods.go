package registry

import (
	"context"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/method"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/api/keys"
	"konsul.dev/services/registry/internal/forward"
	"konsul.dev/services/registry/internal/guard"
	"konsul.dev/services/registry/internal/kv"
)

// methods derives from the contracts how calls travel and what they take. It fails when the options
// of a method that this program serves are missing, contradict each other, or name a function that
// is not here.
func methods(tokens localTokens, services serviceNames) (forward.Routes, guard.Rules, error) {
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
	rules, err := guard.NewRules(served, permissions(services))
	return routes, rules, err
}

// batched returns how a batch of key-value calls travels.
func batched(req proto.Message) forward.Kind {
	if r, ok := req.(*registryv1.BatchRequest); ok && keys.ReadsOnly(r) {
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

// globalToken returns what reports whether a change is of a global token. One that names a
// datacenter is for a local token there.
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
