package acl

import "context"

type contextKey struct{}

// With marks a context as that of a call with an authorizer's rights.
func With(ctx context.Context, a *Authorizer) context.Context {
	return context.WithValue(ctx, contextKey{}, a)
}

// From returns the rights of the call a context belongs to. Outside of one nothing is allowed.
func From(ctx context.Context) *Authorizer {
	if a, ok := ctx.Value(contextKey{}).(*Authorizer); ok {
		return a
	}
	return &Authorizer{}
}
