package target

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// ValueBytes is the size of every value.
const ValueBytes = 256

// LimitSpec is what the limit is told.
type LimitSpec struct {
	Addresses   []string
	Credentials *Credentials
}

// constant returns every call with the same message.
type constant struct {
	registryv1.UnimplementedKVServiceServer
	get *registryv1.GetResponse
	set *registryv1.SetResponse
}

func (c constant) Get(context.Context, *registryv1.GetRequest) (*registryv1.GetResponse, error) {
	return c.get, nil
}

func (c constant) Set(context.Context, *registryv1.SetRequest) (*registryv1.SetResponse, error) {
	return c.set, nil
}

// ServeLimit runs a gRPC server that answers what a registry would, from a constant and with the
// same TLS, until ctx or control ends.
func ServeLimit(ctx context.Context, spec LimitSpec, control io.Reader) error {
	var options []grpc.ServerOption
	if spec.Credentials != nil {
		config, err := spec.Credentials.Client()
		if err != nil {
			return err
		}
		config.ClientCAs, config.ClientAuth = config.RootCAs, tls.RequireAndVerifyClientCert
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	entry := &registryv1.Entry{
		Key: "bench/00000", Value: make([]byte, ValueBytes), Scope: registryv1.Scope_SCOPE_LOCAL, CreateIndex: 100_000, ModifyIndex: 100_000,
		Version: 100, OriginDatacenter: datacenter,
	}
	server := grpc.NewServer(options...)
	registryv1.RegisterKVServiceServer(server, constant{
		get: &registryv1.GetResponse{Entry: entry, Meta: &registryv1.QueryMeta{Datacenter: datacenter, Index: 100_000, KnownLeader: true}},
		set: &registryv1.SetResponse{Entry: entry, Meta: &registryv1.WriteMeta{Datacenter: datacenter, Index: 100_000}},
	})
	ended := make(chan error, len(spec.Addresses)+1)
	for _, address := range spec.Addresses {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		go func() { ended <- server.Serve(listener) }()
	}
	go func() { ended <- listen(control, "") }()
	defer server.Stop()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}
