package load

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	etcd "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/bench/target"
)

const (
	// fillBatch is at most what etcd lets one transaction do.
	fillBatch   = 128
	fillWorkers = 32
	// fillTries a call has, fillPause apart.
	fillTries = 10
	fillPause = 500 * time.Millisecond
)

// FillSpec says what to fill a target with.
type FillSpec struct {
	Access target.Access
	// Keys to write, from the first, many in one call.
	Keys int
	// Instances of one service to register, each by a call of its own.
	Instances int
}

// Filled is what filling took.
type Filled struct {
	Seconds float64
	// Retries is how often a call failed and was made again.
	Retries int
}

// Fill writes what the measurements find.
func Fill(ctx context.Context, spec FillSpec) (Filled, error) {
	if spec.Access.Kind == target.Limit {
		return Filled{}, nil
	}
	d, err := open(spec.Access, Put, 0)
	if err != nil {
		return Filled{}, err
	}
	defer d.close()
	keys, one := fillKonsul, register
	if spec.Access.Kind == target.Etcd {
		keys, one = fillEtcd, registerEtcd
	}
	begin := time.Now()
	var retries atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillWorkers)
	for from := 0; from < spec.Keys && ctx.Err() == nil; from += fillBatch {
		conn := d.conns[from/fillBatch%len(d.conns)]
		group.Go(func() error {
			return retry(ctx, &retries, func() error { return keys(ctx, conn, from, min(from+fillBatch, spec.Keys)) })
		})
	}
	for n := 0; n < spec.Instances && ctx.Err() == nil; n++ {
		group.Go(func() error {
			return retry(ctx, &retries, func() error { return one(ctx, d.conns[n%len(d.conns)], serviceOf(spec.Instances), n) })
		})
	}
	if err := group.Wait(); err != nil {
		return Filled{}, fmt.Errorf("fill %s: %w", spec.Access.Kind, err)
	}
	return Filled{Seconds: time.Since(begin).Seconds(), Retries: int(retries.Load())}, nil
}

// retry makes a call again that failed: a cluster under load may change its leader. What is written
// twice is the same.
func retry(ctx context.Context, retries *atomic.Int64, call func() error) error {
	for tried := 1; ; tried++ {
		err := call()
		if err == nil || tried == fillTries || ctx.Err() != nil {
			return err
		}
		retries.Add(1)
		select {
		case <-time.After(fillPause):
		case <-ctx.Done():
			return err
		}
	}
}

func fillKonsul(ctx context.Context, conn *grpc.ClientConn, from, to int) error {
	req := &registryv1.BatchRequest{}
	for i := from; i < to; i++ {
		req.Operations = append(req.Operations, &registryv1.BatchOperation{
			Operation: &registryv1.BatchOperation_Set{Set: &registryv1.SetRequest{Key: Key(i), Value: value()}},
		})
	}
	resp, err := registryv1.NewKVServiceClient(conn).Batch(rpc.WithToken(ctx, target.Token), req)
	if err != nil {
		return err
	}
	for _, result := range resp.GetResults() {
		if s := result.GetStatus(); s != nil {
			return fmt.Errorf("one of a batch: %s", s.GetMessage())
		}
	}
	return nil
}

func fillEtcd(ctx context.Context, conn *grpc.ClientConn, from, to int) error {
	req := &etcd.TxnRequest{}
	for i := from; i < to; i++ {
		req.Success = append(req.Success, &etcd.RequestOp{
			Request: &etcd.RequestOp_RequestPut{RequestPut: &etcd.PutRequest{Key: []byte(Key(i)), Value: value()}},
		})
	}
	_, err := etcd.NewKVClient(conn).Txn(ctx, req)
	return err
}
