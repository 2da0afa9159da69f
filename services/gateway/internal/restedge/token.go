package restedge

import (
	"context"
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

const (
	// maxTokens bounds the memory of checked tokens.
	maxTokens = 10_000
	// introspectTimeout bounds a question to the registry that several calls may be waiting for.
	introspectTimeout = 3 * time.Second

	tokenRemedy = "set KONSUL_TOKEN, or send an Authorization: Bearer header"
)

// Caller is whose token a call carries.
type Caller struct {
	Accessor   string
	Management bool
	// secret is passed on to whoever decides what the token may do.
	secret string
}

// with returns the caller with the secret, which is not remembered.
func (c Caller) with(secret string) Caller {
	c.secret = secret
	return c
}

type callerKey struct{}

func withCaller(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

func callerFrom(ctx context.Context) Caller {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	return caller
}

// Tokens asks the registry whose a bearer token is, and remembers good answers for a while; for as
// long as the registry does not answer, if need be: a revocation could not have been heard of
// either. A token that expires is believed no longer than that. Only hashes are remembered. What a
// token may do is not: that is checked where a call is answered. Safe for concurrent use.
type Tokens struct {
	client registryv1.TokenServiceClient
	clock  clock.Clock
	ttl    time.Duration
	flight singleflight.Group

	mu    sync.Mutex
	known map[hash]checked
}

type hash [sha256.Size]byte

type checked struct {
	caller Caller
	// expires is when the token is worth nothing more; zero: it stays good.
	expires time.Time
	// refused is the answer to requests without a token while they may do nothing, nil for known
	// tokens: strangers must not make the registry work.
	refused error
	// at is when the registry was last asked, whether or not it answered.
	at time.Time
}

// NewTokens returns a checker that believes an answer for ttl.
func NewTokens(client registryv1.TokenServiceClient, clk clock.Clock, ttl time.Duration) *Tokens {
	return &Tokens{client: client, clock: clk, ttl: ttl, known: map[hash]checked{}}
}

// Check returns whose token secret is; an empty one is that of everybody without. Unauthenticated
// when it is nobody's, Unavailable when that cannot be learnt.
func (t *Tokens) Check(ctx context.Context, secret string) (Caller, error) {
	if secret == "" {
		secret = rpc.AnonymousToken
	}
	key := hash(sha256.Sum256([]byte(secret)))
	t.mu.Lock()
	last, known := t.known[key]
	t.mu.Unlock()
	if now := t.clock.Now(); known && now.Sub(last.at) < t.ttl && !last.over(now) {
		return last.caller.with(secret), last.refused
	}
	outcome := t.flight.DoChan(string(key[:]), func() (any, error) {
		// One asks for all who wait; that one may give up without the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), introspectTimeout)
		defer cancel()
		return t.ask(ctx, key, secret)
	})
	select {
	case <-ctx.Done():
		return Caller{}, ctx.Err()
	case result := <-outcome:
		caller, _ := result.Val.(Caller)
		return caller.with(secret), result.Err
	}
}

// over says that the token has expired.
func (c checked) over(now time.Time) bool { return !c.expires.IsZero() && !now.Before(c.expires) }

func (t *Tokens) ask(ctx context.Context, key hash, secret string) (Caller, error) {
	resp, err := t.client.IntrospectToken(ctx, &registryv1.IntrospectTokenRequest{Secret: secret})
	t.mu.Lock()
	defer t.mu.Unlock()
	last, known := t.known[key]
	known = known && !last.over(t.clock.Now())
	switch code := fault.CodeOf(err); {
	case err == nil:
		last = checked{caller: Caller{Accessor: resp.GetAccessorId(), Management: resp.GetManagement()}}
		if at := resp.GetExpiresAt(); at != nil {
			last.expires = at.AsTime()
		}
	case code == fault.Unauthenticated || code == fault.PermissionDenied || code == fault.NotFound:
		delete(t.known, key)
		if secret != rpc.AnonymousToken {
			return Caller{}, withTokenRemedy(err)
		}
		last = checked{refused: noToken()}
	case !known && secret == rpc.AnonymousToken:
		return Caller{}, noToken()
	case !known:
		return Caller{}, fault.New(fault.Unavailable, "TOKEN_UNCHECKED", "no registry answers whose token this is").
			WithRetryAfter(time.Second).WithRemedy("look at `konsulctl cluster status`").Wrap(err)
	}
	if len(t.known) >= maxTokens {
		clear(t.known)
	}
	last.at = t.clock.Now()
	t.known[key] = last
	return last.caller, last.refused
}

func noToken() error {
	return fault.New(fault.Unauthenticated, rpc.ReasonTokenRequired, "the request carries no token").WithRemedy(tokenRemedy)
}

func withTokenRemedy(err error) error {
	if f, ok := fault.As(err); ok && f.Remedy() == "" {
		return f.WithRemedy("check KONSUL_TOKEN: this datacenter does not know the token")
	}
	return err
}

// tokenHeader is an alternative to Authorization, for clients that use that one for something else.
const tokenHeader = "X-Konsul-Token"

// bearer returns the token of a request's headers; empty when there is none.
func bearer(authorization, token string) string {
	if token != "" {
		return token
	}
	scheme, secret, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}
