package keys

import (
	"context"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/guard"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
)

// NeedsOfKey returns what a call about a key takes.
func NeedsOfKey(ctx context.Context, req proto.Message, access acl.Access) ([]acl.Need, error) {
	r, ok := req.(kv.Request)
	if !ok {
		return guard.Closed(), nil
	}
	key, malformed := kv.KeyOf(ctx, r)
	return needsOfKey(r, key, malformed, access), nil
}

// needsOfKey returns what a call about a key takes, which is the key as it is stored. To read, a
// bare key is good in whichever scope it may be read. A malformed one keeps its form: the handler
// refuses it.
func needsOfKey(r kv.Request, key record.Key, malformed error, access acl.Access) []acl.Need {
	need := acl.Need{Resource: acl.KV, Access: access, Name: key.Bare}
	switch {
	case malformed != nil:
		need.Name = r.GetKey()
	case access != acl.Read:
		need.Name = key.In(key.Write())
	case key.Scope != registryv1.Scope_SCOPE_UNSPECIFIED:
		need.Name = key.In(key.Scope)
	}
	if all, ok := r.(interface{ GetRecurse() bool }); ok {
		need.Below = all.GetRecurse()
	}
	return []acl.Need{need}
}
