package forward

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"konsul.dev/pkg/method"
	optionsv1 "konsul.dev/proto/gen/konsul/options/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Kind is which server of a datacenter carries a call out.
type Kind = optionsv1.Route

// The kinds of calls that travel; see the contract.
const (
	Anywhere = optionsv1.Route_ROUTE_ANYWHERE
	Read     = optionsv1.Route_ROUTE_READ
	Write    = optionsv1.Route_ROUTE_LEADER
	Proposal = optionsv1.Route_ROUTE_PROPOSAL
)

// Route is how calls of one method travel.
type Route struct {
	Kind Kind
	// KindOf decides by the request instead; nil: Kind.
	KindOf func(req proto.Message) Kind
	// Reply makes an empty response.
	Reply func() proto.Message
	// Primary reports whether a request belongs to the primary datacenter; nil: none does.
	Primary func(ctx context.Context, req proto.Message) bool
	// Undigested says that requests with one id are told apart by other means: the id is made of
	// what they are about, or a secret is made up for each.
	Undigested bool
	// Leader leads to what becomes the id of the server that leads as the call sets out; nil:
	// nothing does. Who repeats it sees that the leadership has moved since.
	Leader method.Path
	// Area names what is asked for, in metrics.
	Area string
	// Subject leads to what is asked for instead of Area, and Found to what is not empty in a
	// response if there is such a thing. The caller chose it, who may ask for anything.
	Subject method.Path
	Found   protoreflect.FieldDescriptor
}

// Routes maps full method names. A method that is missing does not travel.
type Routes map[string]Route

// Functions are what the contracts name where a method alone does not decide.
type Functions struct {
	// Kind has those that choose a route.
	Kind map[string]func(req proto.Message) Kind
	// Global has those that report whether a request belongs to the primary.
	Global map[string]func(ctx context.Context, req proto.Message) bool
}

// NewRoutes derives the routes from what the contracts say of methods. It fails when they name a
// function that is not there.
func NewRoutes(methods []method.Method, by Functions) (Routes, error) {
	routes := Routes{}
	for _, m := range methods {
		if m.GetRoute() == optionsv1.Route_ROUTE_HERE {
			continue
		}
		route, err := newRoute(m, by)
		if err != nil {
			return nil, fmt.Errorf("route of %s: %w", m.FullName, err)
		}
		routes[m.FullName] = route
	}
	return routes, nil
}

func newRoute(m method.Method, by Functions) (Route, error) {
	route := Route{
		Kind: m.GetRoute(), KindOf: by.Kind[m.GetRouteBy()], Reply: m.NewReply, Primary: by.Global[m.GetScopeBy()],
		Undigested: m.GetUndigested() || m.GetSecret() != "",
	}
	service := m.Descriptor.Parent().Name()
	switch {
	case m.Descriptor.IsStreamingClient() || m.Descriptor.IsStreamingServer():
		return route, errors.New("a stream does not travel; its handler may pass it on")
	case m.GetRouteBy() != "" && route.KindOf == nil:
		return route, fmt.Errorf("there is no function %q", m.GetRouteBy())
	case m.GetScopeBy() != "" && route.Primary == nil:
		return route, fmt.Errorf("there is no function %q", m.GetScopeBy())
	case m.GetScope() == optionsv1.MethodScope_METHOD_SCOPE_GLOBAL:
		route.Primary = func(context.Context, proto.Message) bool { return true }
	}
	if m.Public() {
		route.Area = strings.ToLower(strings.TrimSuffix(string(service), "Service"))
	}
	var err error
	if m.GetLeader() != "" {
		route.Leader, err = method.ParsePath(m.Descriptor.Input(), m.GetLeader())
	}
	if subject := m.GetSubject(); subject != nil && err == nil {
		route.Found = m.Descriptor.Output().Fields().ByName(protoreflect.Name(subject.GetFound()))
		route.Subject, err = method.ParsePath(m.Descriptor.Input(), subject.GetField())
	}
	return route, err
}

func readMode(req any) registryv1.ReadMode {
	if r, ok := req.(interface{ GetReadMode() registryv1.ReadMode }); ok {
		return r.GetReadMode()
	}
	return registryv1.ReadMode_READ_MODE_DEFAULT
}

func requestedDatacenter(req any) string {
	if r, ok := req.(interface{ GetDatacenter() string }); ok {
		return r.GetDatacenter()
	}
	return ""
}
