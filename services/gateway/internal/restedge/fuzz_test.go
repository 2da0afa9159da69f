package restedge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// agreeable is a service that answers every call with an empty message, and every stream with one.
type agreeable struct{}

func (agreeable) Invoke(_ context.Context, _ string, args, _ any, _ ...grpc.CallOption) error {
	if _, err := proto.Marshal(args.(proto.Message)); err != nil {
		return errors.New("the request cannot be sent")
	}
	return nil
}

func (agreeable) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &agreeableStream{ctx: ctx}, nil
}

type agreeableStream struct {
	ctx      context.Context
	answered bool
}

func (s *agreeableStream) Header() (metadata.MD, error) { return metadata.MD{}, nil }
func (s *agreeableStream) Trailer() metadata.MD         { return metadata.MD{} }
func (s *agreeableStream) CloseSend() error             { return nil }
func (s *agreeableStream) Context() context.Context     { return s.ctx }
func (s *agreeableStream) SendMsg(m any) error {
	_, err := proto.Marshal(m.(proto.Message))
	return err
}

func (s *agreeableStream) RecvMsg(any) error {
	if s.answered {
		return io.EOF
	}
	s.answered = true
	return nil
}

// restRoute is one line of the REST interface, with something in the place of each variable.
type restRoute struct{ method, path, body string }

// restRoutes returns every route of the contracts.
func restRoutes(t testing.TB) []restRoute {
	var out []restRoute
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				rule, _ := proto.GetExtension(methods.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
					out = append(out, oneRoute(r)...)
				}
			}
		}
		return true
	})
	require.Greater(t, len(out), 20)
	slices.SortFunc(out, func(a, b restRoute) int { return strings.Compare(a.method+a.path, b.method+b.path) })
	return out
}

func oneRoute(r *annotations.HttpRule) []restRoute {
	var method, path string
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		method, path = http.MethodGet, p.Get
	case *annotations.HttpRule_Put:
		method, path = http.MethodPut, p.Put
	case *annotations.HttpRule_Post:
		method, path = http.MethodPost, p.Post
	case *annotations.HttpRule_Delete:
		method, path = http.MethodDelete, p.Delete
	case *annotations.HttpRule_Patch:
		method, path = http.MethodPatch, p.Patch
	default:
		return nil
	}
	for {
		before, rest, found := strings.Cut(path, "{")
		if !found {
			return []restRoute{{method, path, r.GetBody()}}
		}
		_, after, _ := strings.Cut(rest, "}")
		path = before + "name" + after
	}
}

// Whatever a client sends to whichever route, the gateway answers, and never by a fault of its own.
func FuzzREST(f *testing.F) {
	conns := Conns{Registry: agreeable{}, CA: agreeable{}, WANGossip: agreeable{}, FailoverRouter: agreeable{}}
	conns, err := conns.guarded(registryv1.NewTokenServiceClient(agreeable{}))
	require.NoError(f, err)
	mux, err := newMux(context.Background(), conns)
	require.NoError(f, err)
	routes := restRoutes(f)
	for i := range routes {
		f.Add(uint16(i), "", "", "{}")
		f.Add(uint16(i), "/more", "index=1&wait=1s&read_mode=stale&limit=5&raw", `{"request_id":"r","wait":"1s","operations":[{"get":{"key":"x"}}]}`)
	}
	f.Add(uint16(0), "%00", "datacenter=%ff&datacenter.x=1&=", "[")
	f.Fuzz(func(t *testing.T, number uint16, more, query, body string) {
		route := routes[int(number)%len(routes)]
		target := &url.URL{Path: route.path + more, RawQuery: query}
		request := (&http.Request{
			Method: route.method, URL: target, Host: "gateway", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}).WithContext(withCaller(t.Context(), Caller{Management: true}.with("secret")))
		request.Header.Set("Content-Type", mimeJSON)
		negotiate(request)
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, request)
		require.NotEqual(t, http.StatusInternalServerError, answer.Code, "%s %s: %s", route.method, target, answer.Body)
		require.NotEqual(t, http.StatusNotImplemented, answer.Code, "%s %s: %s", route.method, target, answer.Body)
	})
}
