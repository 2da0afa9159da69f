// Package konsultest stands in for a gateway in tests of what uses the SDK: a real gRPC server over
// real TLS that checks the token and answers as told. A Gateway is safe for concurrent use.
package konsultest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/rpc"
)

// Token is the one the gateway accepts.
const Token = "test-token"

type answer func(ctx context.Context, request proto.Message) (proto.Message, error)

// Gateway returns the requests that On taught it, and refuses the others as Unimplemented. A batch
// is answered, and noted, as the calls it is made of, unless On taught it batches. Of a stream of
// requests the first is answered once all have come; all of them are noted.
type Gateway struct {
	// Address is where it listens, "https://127.0.0.1:port".
	Address string
	// CAFile holds its certificate.
	CAFile string

	server *grpc.Server

	mu       sync.Mutex
	answers  map[protoreflect.FullName]answer
	requests []proto.Message
}

// Start starts a gateway that stops when the test ends.
func Start(t testing.TB) *Gateway {
	t.Helper()
	g, err := New(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(g.Stop)
	return g
}

// New starts a gateway that writes its CA file into dir. Stop it when done.
func New(dir string) (*Gateway, error) {
	certificate, err := selfSigned()
	if err != nil {
		return nil, err
	}
	g := &Gateway{CAFile: filepath.Join(dir, "roots.pem"), answers: map[protoreflect.FullName]answer{}}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	if err := os.WriteFile(g.CAFile, block, 0o600); err != nil {
		return nil, fmt.Errorf("write roots: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	g.Address = "https://" + listener.Addr().String()
	g.server = grpc.NewServer(
		grpc.Creds(credentials.NewServerTLSFromCert(&certificate)),
		grpc.UnknownServiceHandler(g.serve),
	)
	go func() { _ = g.server.Serve(listener) }()
	return g, nil
}

// Stop ends the gateway and every call in flight.
func (g *Gateway) Stop() { g.server.Stop() }

// Config returns how to reach the gateway.
func (g *Gateway) Config() konsul.Config {
	return konsul.Config{Addresses: []string{g.Address}, Token: Token, CAFile: g.CAFile, Timeout: 10 * time.Second}
}

// Client returns a client of the gateway that is closed when the test ends.
func (g *Gateway) Client(t testing.TB) *konsul.Client {
	t.Helper()
	client, err := konsul.New(g.Config())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// On returns every request of one kind. A later On for the same kind replaces it. Errors travel as
// the services' do.
func On[Request, Response proto.Message](g *Gateway, reply func(Request) (Response, error)) {
	OnContext(g, func(_ context.Context, request Request) (Response, error) { return reply(request) })
}

// OnContext is On for replies that outlast their caller or look at its metadata.
func OnContext[Request, Response proto.Message](g *Gateway, reply func(context.Context, Request) (Response, error)) {
	var kind Request
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers[kind.ProtoReflect().Descriptor().FullName()] = func(ctx context.Context, request proto.Message) (proto.Message, error) {
		typed, ok := request.(Request)
		if !ok {
			return nil, fmt.Errorf("request is a %T", request)
		}
		return reply(ctx, typed)
	}
}

// Requests returns what arrived so far with a valid token, in order.
func (g *Gateway) Requests() []proto.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]proto.Message(nil), g.requests...)
}

// Last returns the latest request of one kind; nil when there was none.
func Last[Request proto.Message](g *Gateway) Request {
	var last Request
	for _, request := range g.Requests() {
		if typed, ok := request.(Request); ok {
			last = typed
		}
	}
	return last
}

func (g *Gateway) serve(_ any, stream grpc.ServerStream) error {
	return rpc.ToStatus(g.handle(stream)).Err()
}

func (g *Gateway) handle(stream grpc.ServerStream) error {
	if rpc.Token(stream.Context()) != Token {
		return fault.New(fault.Unauthenticated, "TOKEN_UNKNOWN", "the token is unknown")
	}
	kind, streamed, err := kindOf(stream)
	if err != nil {
		return err
	}
	request := kind.New().Interface()
	if err := stream.RecvMsg(request); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	var rest []proto.Message
	for streamed {
		next := kind.New().Interface()
		if err := stream.RecvMsg(next); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		rest = append(rest, next)
	}
	response, err := g.answer(stream.Context(), request)
	g.note(rest)
	if err != nil {
		return err
	}
	return stream.SendMsg(response)
}

func (g *Gateway) note(requests []proto.Message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = append(g.requests, requests...)
}

func (g *Gateway) answer(ctx context.Context, request proto.Message) (proto.Message, error) {
	name := request.ProtoReflect().Descriptor().FullName()
	batch, isBatch := request.(*registryv1.BatchRequest)
	g.mu.Lock()
	reply := g.answers[name]
	if isBatch && reply == nil {
		g.mu.Unlock()
		return g.batch(ctx, batch), nil
	}
	g.requests = append(g.requests, request)
	g.mu.Unlock()
	if reply == nil {
		return nil, fault.New(fault.Unimplemented, "NO_ANSWER", "the test has no answer to %T", request)
	}
	return reply(ctx, request)
}

// kindOf returns the kind of message the called method takes, and whether it takes a stream of
// them.
func kindOf(stream grpc.ServerStream) (protoreflect.MessageType, bool, error) {
	full, ok := grpc.MethodFromServerStream(stream)
	if !ok {
		return nil, false, errors.New("a stream without a method")
	}
	name := strings.ReplaceAll(strings.TrimPrefix(full, "/"), "/", ".")
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, false, fmt.Errorf("find method %s: %w", full, err)
	}
	method, ok := descriptor.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, false, fmt.Errorf("%s is no method", full)
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		return nil, false, fmt.Errorf("find request of %s: %w", full, err)
	}
	return kind, method.IsStreamingClient(), nil
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "konsultest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
