package method

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	optionsv1 "konsul.dev/proto/gen/konsul/options/v1"
)

// Method is what one RPC is.
type Method struct {
	// Method is what its options say, those of its service included.
	*optionsv1.Method
	// FullName is gRPC's name of it, such as "/konsul.registry.v1.KVService/Get".
	FullName string
	// Server is the program that serves it, Front the one that also serves it to users; empty:
	// none.
	Server, Front string
	// Descriptor is its place in the contract.
	Descriptor protoreflect.MethodDescriptor
}

// Find returns the method of a full name. It fails for one that no linked contract has, and for one
// whose options are missing or contradict each other.
func Find(fullName string) (Method, error) {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(fullName, "/"), "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return Method{}, fmt.Errorf("method %s: %w", fullName, err)
	}
	d, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return Method{}, fmt.Errorf("%s is no method", fullName)
	}
	return Of(d)
}

// Of returns the method of a descriptor. It fails when the options are missing or contradict each
// other.
func Of(d protoreflect.MethodDescriptor) (Method, error) {
	service := d.Parent()
	m := Method{FullName: fmt.Sprintf("/%s/%s", service.FullName(), d.Name()), Descriptor: d}
	server, _ := proto.GetExtension(service.Options(), optionsv1.E_Server).(*optionsv1.Server)
	own, _ := proto.GetExtension(d.Options(), optionsv1.E_Method).(*optionsv1.Method)
	m.Server, m.Front = server.GetName(), server.GetFront()
	m.Method = merge(server.GetDefaults(), own)
	if err := m.check(); err != nil {
		return Method{}, fmt.Errorf("%s: %w", m.FullName, err)
	}
	return m, nil
}

// Served returns the methods that a program serves, by its name. It fails when the options of one
// are missing or contradict each other.
func Served(server string) ([]Method, error) {
	var out []Method
	var errs []error
	for _, s := range Services() {
		options, _ := proto.GetExtension(s.Options(), optionsv1.E_Server).(*optionsv1.Server)
		if options.GetName() != server && options.GetFront() != server {
			continue
		}
		for i := range s.Methods().Len() {
			m, err := Of(s.Methods().Get(i))
			out, errs = append(out, m), append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Services returns the gRPC services of all linked contracts, other people's included.
func Services() []protoreflect.ServiceDescriptor {
	var out []protoreflect.ServiceDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			out = append(out, file.Services().Get(i))
		}
		return true
	})
	return out
}

// IsIdempotent reports whether a method may be called again, whatever became of the first call. It
// is false for one that is not known.
func IsIdempotent(fullName string) bool {
	m, err := Find(fullName)
	return err == nil && m.IsIdempotent()
}

// IsIdempotent reports whether the method may be called again, whatever became of the first call.
func (m Method) IsIdempotent() bool {
	return m.GetIdempotent() || m.GetRoute() == optionsv1.Route_ROUTE_READ || m.GetRoute() == optionsv1.Route_ROUTE_ANYWHERE
}

// Public reports whether users may call the method.
func (m Method) Public() bool { return m.GetUsers() != optionsv1.Users_USERS_NONE }

// NewRequest returns an empty request.
func (m Method) NewRequest() proto.Message { return newMessage(m.Descriptor.Input()) }

// NewReply returns an empty response.
func (m Method) NewReply() proto.Message { return newMessage(m.Descriptor.Output()) }

// newMessage returns a message of the Go type that is linked for it, if there is one.
func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	if kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName()); err == nil {
		return kind.New().Interface()
	}
	return dynamicpb.NewMessage(d)
}

// merge returns what a method says, and of the rest what its service says.
func merge(defaults, own *optionsv1.Method) *optionsv1.Method {
	out := &optionsv1.Method{}
	proto.Merge(out, defaults)
	from, to := own.ProtoReflect(), out.ProtoReflect()
	fields := to.Descriptor().Fields()
	for _, group := range [][]protoreflect.Name{{"route", "route_by"}, {"scope", "scope_by"}, {"peers", "far_peers"}, {"needs", "check"}} {
		for _, name := range group {
			if !from.Has(fields.ByName(name)) {
				continue
			}
			for _, replaced := range group {
				to.Clear(fields.ByName(replaced))
			}
		}
	}
	proto.Merge(out, own)
	return out
}

// check returns an error for options that say too little or too much.
func (m Method) check() error {
	routed := m.GetRoute() != optionsv1.Route_ROUTE_HERE
	programs := m.GetCheck() == optionsv1.TokenCheck_TOKEN_CHECK_PROGRAMS
	errs := []error{
		must(m.Server != "", "the options of its service name no server"),
		must((m.GetRoute() != 0) != (m.GetRouteBy() != ""), "its options name no route, or two"),
		must(!routed || (m.GetScope() != 0) != (m.GetScopeBy() != ""), "its options name no scope, or two"),
		must(m.GetUsers() != 0, "its options do not say whether users may call"),
		must(m.Public() || len(m.GetPeers())+len(m.GetFarPeers()) > 0 || m.GetNoCertificate(), "its options let nobody call"),
		must((len(m.GetNeeds()) > 0) != (m.GetCheck() != 0), "its options name no permission, or also who else decides"),
		must(!m.Public() || !programs, "its options let users call, and no token"),
	}
	for _, need := range m.GetNeeds() {
		errs = append(errs, must(need.GetBy() == "" || need.GetName() == "" && need.GetField() == "", "a permission has a function, a name and a field"))
		if need.GetField() != "" {
			_, err := ParsePath(m.Descriptor.Input(), need.GetField())
			errs = append(errs, err)
		}
	}
	for _, field := range []string{m.GetSecret(), m.GetLeader(), m.GetSubject().GetField()} {
		if field != "" {
			_, err := ParsePath(m.Descriptor.Input(), field)
			errs = append(errs, err)
		}
	}
	if found := m.GetSubject().GetFound(); found != "" {
		field := m.Descriptor.Output().Fields().ByName(protoreflect.Name(found))
		errs = append(errs, must(field != nil && field.IsList(), "its response has no repeated "+found))
	}
	return errors.Join(errs...)
}

func must(ok bool, otherwise string) error {
	if ok {
		return nil
	}
	return errors.New(otherwise)
}
