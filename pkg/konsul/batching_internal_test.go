package konsul

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

// edge is a connection that answers reads with their key, keeps what it is asked, and holds every
// call until released.
type edge struct {
	hold chan struct{}
	// refuse, if set, may fail a whole call.
	refuse func(args any) error
	// answer, if set, answers an operation of a batch.
	answer func(*registryv1.BatchOperation) *registryv1.BatchResult

	mu     sync.Mutex
	asked  []any
	broken []error
}

func newEdge() *edge { return &edge{hold: make(chan struct{})} }

func (e *edge) release() { close(e.hold) }

func (e *edge) Invoke(ctx context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	e.mu.Lock()
	e.asked = append(e.asked, args)
	e.mu.Unlock()
	select {
	case <-e.hold:
	case <-ctx.Done():
		e.mu.Lock()
		defer e.mu.Unlock()
		e.broken = append(e.broken, ctx.Err())
		return status.FromContextError(ctx.Err()).Err()
	}
	if e.refuse != nil {
		if err := e.refuse(args); err != nil {
			return err
		}
	}
	switch r := args.(type) {
	case *registryv1.GetRequest:
		proto.Merge(reply.(proto.Message), got(r.GetKey())) //nolint:forcetypeassert // the answer to this request
	case *registryv1.BatchRequest:
		for _, o := range r.GetOperations() {
			reply.(*registryv1.BatchResponse).Results = append(reply.(*registryv1.BatchResponse).Results, e.result(o)) //nolint:forcetypeassert // as above
		}
	}
	return nil
}

func (e *edge) result(o *registryv1.BatchOperation) *registryv1.BatchResult {
	if e.answer != nil {
		return e.answer(o)
	}
	switch o := o.GetOperation().(type) {
	case *registryv1.BatchOperation_Get:
		return &registryv1.BatchResult{Result: &registryv1.BatchResult_Get{Get: got(o.Get.GetKey())}}
	case *registryv1.BatchOperation_Set:
		return &registryv1.BatchResult{Result: &registryv1.BatchResult_Set{Set: &registryv1.SetResponse{}}}
	default:
		return &registryv1.BatchResult{Result: &registryv1.BatchResult_Delete{Delete: &registryv1.DeleteResponse{}}}
	}
}

func got(key string) *registryv1.GetResponse {
	return &registryv1.GetResponse{Entry: &registryv1.Entry{Key: key}}
}

func (e *edge) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no streams")
}

// sizes returns how many calls each request was, in the order they came.
func (e *edge) sizes() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	var sizes []int
	for _, args := range e.asked {
		n := 1
		if b, ok := args.(*registryv1.BatchRequest); ok {
			n = len(b.GetOperations())
		}
		sizes = append(sizes, n)
	}
	return sizes
}

func kvOn(e *edge) registryv1.KVServiceClient {
	return registryv1.NewKVServiceClient(newTransport(e, Config{Timeout: time.Minute}))
}

// crowd reads n keys at the same time, each call being under way before the next, and returns the
// errors once all ended.
func crowd(t *testing.T, client registryv1.KVServiceClient, n int) (wait func() []error) {
	t.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			key := fmt.Sprintf("k%d", i)
			answer, err := client.Get(t.Context(), &registryv1.GetRequest{Key: key})
			if err == nil && answer.GetEntry().GetKey() != key {
				err = fmt.Errorf("asked for %s, got %s", key, answer.GetEntry().GetKey())
			}
			errs[i] = err
		})
		synctest.Wait()
	}
	return func() []error {
		wg.Wait()
		return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	}
}

func TestALoneCallGoesAtOnceAndTheRestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		wait := crowd(t, kvOn(e), 10)
		require.Equal(t, []int{1, 1}, e.sizes(), "two are out, eight wait")
		e.release()
		require.Empty(t, wait())
		require.Equal(t, []int{1, 1, 8}, e.sizes())
		require.IsType(t, &registryv1.GetRequest{}, e.asked[0], "alone, it is an ordinary call")
	})
}

func TestBatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		wait := crowd(t, kvOn(e), batchCalls+10)
		e.release()
		require.Empty(t, wait())
		require.LessOrEqual(t, slices.Max(e.sizes()), batchCalls)
	})
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		client := kvOn(e)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := client.Set(t.Context(), &registryv1.SetRequest{Key: "k", Value: make([]byte, largeCall/2)})
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		e.release()
		wg.Wait()
		for _, args := range e.asked {
			require.LessOrEqual(t, proto.Size(args.(proto.Message)), batchBytes+1000) //nolint:forcetypeassert // it is a request
		}
	})
}

func TestCallsOfABatchFailByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		e.answer = func(o *registryv1.BatchOperation) *registryv1.BatchResult {
			switch o.GetGet().GetKey() {
			case "k3":
				return &registryv1.BatchResult{Result: &registryv1.BatchResult_Status{Status: rpc.ToStatus(fault.New(fault.NotFound, "KEY_NOT_FOUND", "no k3")).Proto()}}
			case "k4":
				return &registryv1.BatchResult{Result: &registryv1.BatchResult_Set{Set: &registryv1.SetResponse{}}}
			case "k5":
				return &registryv1.BatchResult{}
			}
			return &registryv1.BatchResult{Result: &registryv1.BatchResult_Get{Get: got(o.GetGet().GetKey())}}
		}
		wait := crowd(t, kvOn(e), 8)
		e.release()
		errs := wait()
		require.Len(t, errs, 3)
		require.Equal(t, "KEY_NOT_FOUND", fault.ReasonOf(errs[0]))
		require.ErrorContains(t, errs[1], "BatchResult_Set")
		require.Equal(t, fault.Internal, fault.CodeOf(errs[2]))
	})
}

func TestReadsWritesDatacentersAndModesTravelApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		client := kvOn(e)
		var wg sync.WaitGroup
		for range 5 {
			for _, get := range []*registryv1.GetRequest{
				{Key: "k"}, {Key: "k", Datacenter: "eu"}, {Key: "k", ReadMode: registryv1.ReadMode_READ_MODE_STALE},
			} {
				wg.Go(func() { _, _ = client.Get(t.Context(), get) })
				synctest.Wait()
			}
			wg.Go(func() { _, _ = client.Set(t.Context(), &registryv1.SetRequest{Key: "k", Datacenter: "eu"}) })
			synctest.Wait()
		}
		e.release()
		wg.Wait()
		var batches int
		for _, args := range e.asked {
			batch, ok := args.(*registryv1.BatchRequest)
			if !ok {
				continue
			}
			batches++
			require.Len(t, batch.GetOperations(), 3)
			for _, o := range batch.GetOperations() {
				if get := o.GetGet(); get != nil {
					require.Equal(t, batch.GetDatacenter(), get.GetDatacenter())
					require.Equal(t, batch.GetReadMode(), get.GetReadMode())
				} else {
					require.Equal(t, "eu", batch.GetDatacenter())
				}
			}
		}
		require.Equal(t, 4, batches)
	})
}

func TestSomeCallsAlwaysGoByThemselves(t *testing.T) {
	for name, call := range map[string]func(context.Context, registryv1.KVServiceClient){
		"blocking read": func(ctx context.Context, c registryv1.KVServiceClient) {
			_, _ = c.Get(ctx, &registryv1.GetRequest{Index: 1})
		},
		"global write": func(ctx context.Context, c registryv1.KVServiceClient) {
			_, _ = c.Set(ctx, &registryv1.SetRequest{Key: "global/k"})
		},
		"write of global scope": func(ctx context.Context, c registryv1.KVServiceClient) {
			_, _ = c.Delete(ctx, &registryv1.DeleteRequest{Key: "k", Scope: registryv1.Scope_SCOPE_GLOBAL})
		},
		"delete of many": func(ctx context.Context, c registryv1.KVServiceClient) {
			_, _ = c.Delete(ctx, &registryv1.DeleteRequest{Key: "k", Recurse: true})
		},
		"list": func(ctx context.Context, c registryv1.KVServiceClient) {
			_, _ = c.List(ctx, &registryv1.ListRequest{})
		},
		"large value": func(ctx context.Context, c registryv1.KVServiceClient) {
			_, _ = c.Set(ctx, &registryv1.SetRequest{Key: "k", Value: make([]byte, largeCall)})
		},
		"own metadata": func(ctx context.Context, c registryv1.KVServiceClient) {
			_, _ = c.Get(metadata.AppendToOutgoingContext(ctx, "a", "b"), &registryv1.GetRequest{})
		},
		"own option": func(ctx context.Context, c registryv1.KVServiceClient) {
			_, _ = c.Get(ctx, &registryv1.GetRequest{}, grpc.Header(&metadata.MD{}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEdge()
				client := kvOn(e)
				for range 5 {
					go call(t.Context(), client)
				}
				synctest.Wait()
				require.Equal(t, []int{1, 1, 1, 1, 1}, e.sizes(), "none waits for another")
				e.release()
				synctest.Wait()
			})
		})
	}
}

func TestBatchingCanBeSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		wait := crowd(t, registryv1.NewKVServiceClient(newTransport(e, Config{Timeout: time.Minute, DisableBatching: true})), 5)
		require.Len(t, e.sizes(), 5)
		e.release()
		require.Empty(t, wait())
	})
}

func TestACallerWhoLeavesABatchIsAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		client := kvOn(e)
		// Two go out; when the first caller leaves, those who queued travel as one while the other
		// is out.
		first, cancelFirst := context.WithCancel(t.Context())
		var leavers sync.WaitGroup
		read := func(ctx context.Context, want fault.Code) {
			leavers.Go(func() {
				_, err := client.Get(ctx, &registryv1.GetRequest{Key: "k"})
				require.Equal(t, want, fault.CodeOf(err))
			})
			synctest.Wait()
		}
		read(first, fault.Canceled)
		stays := crowd(t, client, 1)
		rest, cancelRest := context.WithCancel(t.Context())
		read(rest, fault.Canceled)
		read(rest, fault.Canceled)
		queued, cancelQueued := context.WithCancel(t.Context())
		cancelFirst()
		synctest.Wait()
		require.Equal(t, []int{1, 1, 2}, e.sizes())
		read(queued, fault.Canceled)
		cancelQueued()
		synctest.Wait()
		cancelRest()
		leavers.Wait()
		synctest.Wait()
		require.Len(t, e.broken, 2, "what nobody waits for any more ends: the first call and the batch")
		e.release()
		require.Empty(t, stays())
		require.Equal(t, []int{1, 1, 2}, e.sizes(), "who left before the trip is not taken along")
	})
}

func TestABatchLastsAsLongAsItsMostPatientCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		client := kvOn(e)
		wait := crowd(t, client, 2)
		var callers sync.WaitGroup
		for _, patience := range []time.Duration{time.Second, time.Minute} {
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := client.Get(ctx, &registryv1.GetRequest{Key: "k"})
				if patience == time.Second {
					require.Equal(t, fault.DeadlineExceeded, fault.CodeOf(err))
				} else {
					require.NoError(t, err)
				}
			})
			synctest.Wait()
		}
		hold := e.hold
		e.mu.Lock()
		e.hold = make(chan struct{})
		e.mu.Unlock()
		close(hold)
		require.Empty(t, wait())
		synctest.Wait()
		require.Equal(t, []int{1, 1, 2}, e.sizes())
		time.Sleep(2 * time.Second)
		e.release()
		callers.Wait()
	})
}

func TestAnOlderRegistryIsAskedOneByOne(t *testing.T) {
	for name, refusal := range map[string]error{
		"unimplemented":  status.Error(codes.Unimplemented, "unknown method Batch"),
		"unknown method": ours(fault.PermissionDenied, rpc.ReasonUnknownMethod),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEdge()
				e.refuse = func(args any) error {
					if _, ok := args.(*registryv1.BatchRequest); ok {
						return refusal
					}
					return nil
				}
				client := kvOn(e)
				wait := crowd(t, client, 6)
				e.release()
				require.Empty(t, wait())
				require.Equal(t, []int{1, 1, 4, 1, 1, 1, 1}, e.sizes())
				e.hold = make(chan struct{})
				wait = crowd(t, client, 6)
				require.Len(t, e.sizes(), 13, "batches are not tried for a while")
				e.release()
				require.Empty(t, wait())
				time.Sleep(batchPause)
				e.refuse, e.hold = nil, make(chan struct{})
				wait = crowd(t, client, 6)
				require.Len(t, e.sizes(), 15, "then they are")
				e.release()
				require.Empty(t, wait())
			})
		})
	}
}

func TestAnswersTooLargeTogetherAreAskedForOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		e.refuse = func(args any) error {
			if batch, ok := args.(*registryv1.BatchRequest); ok && len(batch.GetOperations()) > 4 {
				return status.Error(codes.ResourceExhausted, "grpc: received message larger than max")
			}
			return nil
		}
		client := kvOn(e)
		wait := crowd(t, client, 18)
		e.release()
		require.Empty(t, wait())
		require.Equal(t, 16, e.sizes()[2])
		before := len(e.sizes())
		e.hold = make(chan struct{})
		wait = crowd(t, client, 18)
		e.release()
		require.Empty(t, wait())
		require.LessOrEqual(t, slices.Max(e.sizes()[before:]), 8, "the next batches are smaller")
	})
}

func TestOnlyWhatMayBeRepeatedIsAndOnceWithItsOwnRequestID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		var once sync.Once
		e.answer = func(o *registryv1.BatchOperation) *registryv1.BatchResult {
			result := &registryv1.BatchResult{Result: &registryv1.BatchResult_Set{Set: &registryv1.SetResponse{}}}
			switch o.GetSet().GetKey() {
			case "unsure":
				once.Do(func() {
					result.Result = &registryv1.BatchResult_Status{Status: rpc.ToStatus(fault.New(fault.Unknown, fault.ReasonOutcomeUnknown, "unsure")).Proto()}
				})
			case "refused":
				result.Result = &registryv1.BatchResult_Status{Status: rpc.ToStatus(fault.New(fault.Aborted, "CAS_MISMATCH", "no")).Proto()}
			}
			return result
		}
		client := kvOn(e)
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b", "unsure", "refused", "fine"} {
			wg.Go(func() {
				_, err := client.Set(t.Context(), &registryv1.SetRequest{Key: key})
				require.Equal(t, key == "refused", err != nil, "%v", err)
			})
			synctest.Wait()
		}
		e.release()
		wg.Wait()
		ids := map[string][]string{}
		note := func(r *registryv1.SetRequest) { ids[r.GetKey()] = append(ids[r.GetKey()], r.GetRequestId()) }
		for _, args := range e.asked {
			switch r := args.(type) {
			case *registryv1.SetRequest:
				note(r)
			case *registryv1.BatchRequest:
				for _, o := range r.GetOperations() {
					note(o.GetSet())
				}
			}
		}
		for key, seen := range ids {
			require.NotEmpty(t, seen[0])
			if key == "unsure" {
				require.Len(t, seen, 2)
				require.Equal(t, seen[0], seen[1])
			} else {
				require.Len(t, seen, 1, key)
			}
		}
	})
}

func TestWhenABatchIsLostEveryCallIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		lost := 0
		e.refuse = func(args any) error {
			if _, ok := args.(*registryv1.BatchRequest); ok && lost == 0 {
				lost++
				return status.Error(codes.Unavailable, "connection reset")
			}
			return nil
		}
		wait := crowd(t, kvOn(e), 8)
		e.release()
		require.Empty(t, wait())
		require.Equal(t, 1, lost)
	})
}

func TestACallerWhoLeftMayUseTheirMessageAgain(t *testing.T) {
	e := newEdge()
	client := kvOn(e)
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				request := &registryv1.SetRequest{Key: "k", Value: []byte("value"), RequestId: "id"}
				_, _ = client.Set(ctx, request)
				request.Key, request.Value[0] = strings.Repeat("x", 3), 'x'
			})
		}
		cancel()
		wg.Wait()
	}
	e.release()
}

func TestTooManyDestinationsGoByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdge()
		e.release()
		b := newBatching(e)
		for i := range 2 * mostDestinations {
			require.NoError(t, b.Invoke(t.Context(), registryv1.KVService_Get_FullMethodName, &registryv1.GetRequest{Datacenter: fmt.Sprint(i)}, &registryv1.GetResponse{}))
		}
		require.Len(t, b.queues, mostDestinations)
		require.Len(t, e.sizes(), 2*mostDestinations)
	})
}
