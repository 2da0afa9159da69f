package kv

import (
	"context"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Request is about one key, or about everything below one.
type Request interface {
	GetKey() string
	GetScope() registryv1.Scope
}

type parsed struct {
	req Request
	key record.Key
	err error
}

type parsedKey struct{}

// WithKey returns a context that has the key of a request: what the request takes, where it belongs
// and its handler depend on it. A request that is not about a key leaves ctx as it is.
func WithKey(ctx context.Context, req any) context.Context {
	r, ok := req.(Request)
	if !ok {
		return ctx
	}
	p := &parsed{req: r}
	p.key, p.err = record.ParseKey(r.GetKey(), r.GetScope())
	return context.WithValue(ctx, parsedKey{}, p)
}

// KeyOf returns the key of a request, from its context if it is there: a part of a batch has none.
// A malformed one is an InvalidArgument fault.
func KeyOf(ctx context.Context, req Request) (record.Key, error) {
	if p, ok := ctx.Value(parsedKey{}).(*parsed); ok && p.req == req {
		return p.key, p.err
	}
	return record.ParseKey(req.GetKey(), req.GetScope())
}
