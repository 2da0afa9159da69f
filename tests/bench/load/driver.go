package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tests/bench/target"
)

// Op names an operation.
type Op string

// The operations.
const (
	// Put writes one key.
	Put Op = "put"
	// GetLinearizable, GetDefault and GetStale read one key; GetStale is etcd's serializable read,
	// GetDefault ours only.
	GetLinearizable Op = "get linearizable"
	GetDefault      Op = "get default"
	GetStale        Op = "get stale"
	// HealthLinearizable, HealthDefault and HealthStale ask for all instances of one service; etcd
	// reads as many records.
	HealthLinearizable Op = "health linearizable"
	HealthDefault      Op = "health default"
	HealthStale        Op = "health stale"
	// RegisterNode registers a node with ten services at once.
	RegisterNode Op = "register node"
	// SDKPut and SDKGet go through our client library, which sends concurrent calls together.
	SDKPut Op = "sdk put"
	SDKGet Op = "sdk get"
)

// operation calls one server about one key.
type operation func(ctx context.Context, server, key int) error

// driver is an operation with the connections behind it.
type driver struct {
	op    operation
	conns []*grpc.ClientConn
	sdk   *konsul.Client
}

func (d *driver) close() {
	if d.sdk != nil {
		_ = d.sdk.Close() // as below
	}
	for _, c := range d.conns {
		_ = c.Close() // nothing is lost: the measurement is over
	}
}

// open connects to every server of a target.
func open(access target.Access, op Op, instances int) (*driver, error) {
	d := &driver{}
	transport := insecure.NewCredentials()
	if access.Credentials != nil {
		config, err := access.Credentials.Client()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(config)
	}
	if err := d.connect(access, op, instances, transport); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *driver) connect(access target.Access, op Op, instances int, transport credentials.TransportCredentials) error {
	if op == SDKPut || op == SDKGet {
		return d.connectSDK(access, op, transport)
	}
	for _, address := range access.Addresses {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport), grpc.WithConnectParams(reconnect()))
		if err != nil {
			return fmt.Errorf("connect to %s: %w", address, err)
		}
		d.conns = append(d.conns, conn)
	}
	operations := konsulOperation
	if access.Kind == target.Etcd {
		operations = etcdOperation
	}
	var err error
	if d.op, err = operations(d.conns, op, instances); err != nil {
		return err
	}
	if d.op == nil {
		return fmt.Errorf("%s has no operation %q", access.Kind, op)
	}
	return nil
}

// reconnect makes a client notice soon that a server is there.
func reconnect() grpc.ConnectParams {
	b := backoff.DefaultConfig
	b.BaseDelay, b.MaxDelay = 10*time.Millisecond, 20*time.Millisecond
	return grpc.ConnectParams{Backoff: b, MinConnectTimeout: time.Second}
}

// Key is the n-th key.
func Key(n int) string { return fmt.Sprintf("bench/%07d", n) }

func value() []byte {
	v := make([]byte, target.ValueBytes)
	_, _ = rand.Read(v) // never fails
	return v
}
