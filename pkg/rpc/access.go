package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/method"
	optionsv1 "konsul.dev/proto/gen/konsul/options/v1"
)

// Reasons of refused calls.
const (
	// ReasonNoCertificate means the caller showed no client certificate.
	ReasonNoCertificate = "CERTIFICATE_REQUIRED"
	// ReasonTokenRequired means the call carries no bearer token.
	ReasonTokenRequired = "TOKEN_REQUIRED"
	// ReasonPeerDenied means the calling service may not make this call.
	ReasonPeerDenied = "PEER_DENIED"
	// ReasonUnknownMethod means nobody may call this method here.
	ReasonUnknownMethod = "UNKNOWN_METHOD"
)

// Peer names a control-plane service that may call.
type Peer struct {
	// Service is its name, or "*" for any.
	Service string
	// AnyDC admits the service of every datacenter; otherwise only of the own.
	AnyDC bool
}

// Rule says who may call a gRPC service or method.
type Rule struct {
	// Peers may call as themselves.
	Peers []Peer
	// TokenPeers may call on behalf of a user, whose bearer token they carry.
	TokenPeers []Peer
	// Anyone may call, even without a certificate: the handler authenticates the request itself.
	Anyone bool
}

// Access is the whole of a server's peer policy, as data. Keys are "konsul.registry.v1.KVService"
// or "/konsul.registry.v1.KVService/Get"; the method's rule wins. What is not listed is refused.
type Access map[string]Rule

// AccessOf returns the policy of a program as the contracts state it. A program that checks no
// tokens takes calls of peers only: the gateway that passes users' calls on to it is one.
func AccessOf(server string, tokens bool) (Access, error) {
	methods, err := method.Served(server)
	if err != nil {
		return nil, err
	}
	access := Access{}
	for _, m := range methods {
		access[m.FullName] = ruleOf(m, m.Server == server, tokens)
	}
	return access, nil
}

// ruleOf returns who may call a method. A server that only fronts for another takes no calls of
// peers.
func ruleOf(m method.Method, own, tokens bool) Rule {
	// Calls of users come through the gateway, or were passed on by a registry.
	users := []Peer{{Service: "gateway"}, {Service: "registry", AnyDC: true}}
	rule := Rule{Anyone: own && m.GetNoCertificate()}
	if tokens && m.GetUsers() == optionsv1.Users_USERS_WITH_TOKEN {
		rule.TokenPeers = users
	}
	if !own {
		return rule
	}
	for _, service := range m.GetPeers() {
		rule.Peers = append(rule.Peers, Peer{Service: service})
	}
	for _, service := range m.GetFarPeers() {
		rule.Peers = append(rule.Peers, Peer{Service: service, AnyDC: true})
	}
	if m.GetUsers() == optionsv1.Users_USERS_WITHOUT_TOKEN {
		rule.Peers = append(rule.Peers, users...)
	}
	return rule
}

// TokenChecker decides whose a bearer token is. What it may do is for the service to decide, by
// what it knows of the request.
type TokenChecker interface {
	// CheckToken returns the token's accessor id and what it grants, in the service's own terms, or
	// an Unauthenticated fault. The secret is AnonymousToken for a call that carries none.
	CheckToken(ctx context.Context, secret string) (accessor string, grant any, err error)
}

// AnonymousToken stands for the token of a call on behalf of somebody who has none. It is too short
// to be anybody's secret, and may be sent: a peer that may also call as itself says so with it.
const AnonymousToken = "anonymous"

// Caller is who makes a request: a service, perhaps on behalf of a user.
type Caller struct {
	Peer identity.ID
	// Accessor is the id of the user's token; empty when the peer acts as itself.
	Accessor string
	// Grant is what the TokenChecker said of that token.
	Grant any
}

type callerKey struct{}

// CallerFrom returns who made the request that ctx belongs to; the zero Caller outside one.
func CallerFrom(ctx context.Context) Caller {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	return caller
}

// WithCaller marks ctx as belonging to a request by caller. The server's interceptors call it; so
// may tests.
func WithCaller(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// PeerID returns the verified identity at the other end of the connection ctx belongs to.
func PeerID(ctx context.Context) (identity.ID, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity.ID{}, false
	}
	info, ok := p.AuthInfo.(peerInfo)
	return info.id, ok && info.known
}

// PeerState returns the TLS state of the connection ctx belongs to.
func PeerState(ctx context.Context) (tls.ConnectionState, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return tls.ConnectionState{}, false
	}
	info, ok := p.AuthInfo.(peerInfo)
	return info.State, ok
}

// peerInfo is a connection's TLS state and who is at its other end.
type peerInfo struct {
	credentials.TLSInfo
	id    identity.ID
	known bool
	conn  *connection
}

const (
	authorization = "authorization"
	bearer        = "Bearer "
)

// Token returns the bearer token that came with a request; empty when none did.
func Token(ctx context.Context) string {
	for _, value := range metadata.ValueFromIncomingContext(ctx, authorization) {
		if len(value) > len(bearer) && strings.EqualFold(value[:len(bearer)], bearer) {
			return value[len(bearer):]
		}
	}
	return ""
}

// WithToken makes calls under ctx carry a bearer token.
func WithToken(ctx context.Context, secret string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, authorization, bearer+secret)
}

// guard decides about calls to one server.
type guard struct {
	access Access
	// stated is whether access is what the contracts say.
	stated bool
	tokens TokenChecker
	own    identity.ID
	// refused hears of every call that is not admitted; may be nil.
	refused func(ctx context.Context, fullMethod string, err error)
}

// covers returns an error for methods of which the contracts do not say who may call them.
func (g guard) covers(services map[string]grpc.ServiceInfo) error {
	var errs []error
	for service, info := range services {
		for _, m := range info.Methods {
			fullMethod := "/" + service + "/" + m.Name
			if _, ok := g.rule(fullMethod); g.stated && !ok {
				errs = append(errs, fmt.Errorf("%s is served here, which its options (konsul.options.v1) do not say", fullMethod))
			}
		}
	}
	return errors.Join(errs...)
}

func (g guard) admit(ctx context.Context, fullMethod string) (context.Context, error) {
	admitted, err := g.decide(ctx, fullMethod)
	if err != nil && g.refused != nil {
		g.refused(ctx, fullMethod, err)
	}
	return admitted, err
}

func (g guard) decide(ctx context.Context, fullMethod string) (context.Context, error) {
	rule, ok := g.rule(fullMethod)
	if !ok {
		return nil, fault.New(fault.PermissionDenied, ReasonUnknownMethod, "%s is not open to anyone here", fullMethod)
	}
	id, authenticated := PeerID(ctx)
	if !authenticated {
		if rule.Anyone {
			return WithCaller(ctx, Caller{}), nil
		}
		return nil, fault.New(fault.Unauthenticated, ReasonNoCertificate, "%s asks for a client certificate", fullMethod).
			WithRemedy("enroll with the datacenter's ca, or call through the gateway")
	}
	caller := Caller{Peer: id}
	token := Token(ctx)
	carries := g.match(rule.TokenPeers, id)
	switch {
	case carries && token == "" && (rule.Anyone || g.match(rule.Peers, id)):
	case carries && g.tokens == nil:
		return nil, fault.New(fault.PermissionDenied, ReasonPeerDenied, "this server checks no tokens")
	case carries:
		if token == "" {
			token = AnonymousToken
		}
		accessor, grant, err := g.tokens.CheckToken(ctx, token)
		if err != nil {
			return nil, err
		}
		caller.Accessor, caller.Grant = accessor, grant
	case rule.Anyone, g.match(rule.Peers, id):
	default:
		return nil, fault.New(fault.PermissionDenied, ReasonPeerDenied, "%s may not call %s", id, fullMethod)
	}
	return WithCaller(ctx, caller), nil
}

func (g guard) rule(fullMethod string) (Rule, bool) {
	if rule, ok := g.access[fullMethod]; ok {
		return rule, true
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	rule, ok := g.access[service]
	return rule, ok
}

func (g guard) match(peers []Peer, id identity.ID) bool {
	if id.Kind != identity.KindService || id.FederationID != g.own.FederationID {
		return false
	}
	for _, p := range peers {
		if (p.Service == "*" || p.Service == id.Service) && (p.AnyDC || id.Datacenter == g.own.Datacenter) {
			return true
		}
	}
	return false
}
