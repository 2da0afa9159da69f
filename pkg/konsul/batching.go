package konsul

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/coalesce"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/kvkey"
	"konsul.dev/pkg/rpc"
)

const (
	// batchTrips batches to one destination may be out at once. A second one fills the time in
	// which the answers of the first are handed out; more would only make them smaller.
	batchTrips = 2
	// batchCalls and batchBytes bound one batch; the bytes are those of requests and, as far as
	// they can be guessed, answers.
	batchCalls = 500
	batchBytes = 1 << 20
	// largeCall goes by itself.
	largeCall = batchBytes / 16
	// waitingCalls bounds what queues for one destination; what does not fit goes by itself.
	waitingCalls = 100_000
	// mostDestinations bounds the queues: callers may name datacenters that are none.
	mostDestinations = 64
	// batchPause is for how long a gateway whose registry does not know batches is not asked again.
	batchPause = time.Minute
)

// batching sends key-value calls that are made at the same time together, as one Batch: while calls
// to a destination are out, what else is called there queues, and goes as one when they are back.
// No call waits for company. Each keeps its own context, request id and error. Retries stay above
// it, call by call.
type batching struct {
	next grpc.ClientConnInterface
	// pausedUntil is when a batch may be tried again, in nanoseconds since the epoch.
	pausedUntil atomic.Int64

	mu     sync.Mutex
	queues map[destination]*queue
}

// destination is what all calls of a batch have in common.
type destination struct {
	datacenter string
	// mode is how fresh reads must be; writes have none, and go apart: a read must not wait for a
	// disk.
	mode  registryv1.ReadMode
	write bool
}

func newBatching(next grpc.ClientConnInterface) *batching {
	return &batching{next: next, queues: map[destination]*queue{}}
}

// NewStream implements grpc.ClientConnInterface.
func (b *batching) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return b.next.NewStream(ctx, desc, method, opts...)
}

// Invoke implements grpc.ClientConnInterface.
func (b *batching) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	to, ok := destinationOf(args)
	answer, isMessage := reply.(proto.Message)
	if !ok || !isMessage || !ordinary(ctx, opts) || time.Now().UnixNano() < b.pausedUntil.Load() {
		return b.next.Invoke(ctx, method, args, reply, opts...)
	}
	c := newCall(ctx, method, args.(proto.Message), answer) //nolint:forcetypeassert // it has a destination
	q := b.queue(to)
	if c == nil || q == nil || !q.calls.Add(c) {
		return b.next.Invoke(ctx, method, args, reply, opts...)
	}
	select {
	case o := <-c.done:
		if o.err == nil {
			moveInto(answer, o.reply)
		}
		return o.err
	case <-ctx.Done():
		c.leave()
		return status.FromContextError(ctx.Err()).Err()
	}
}

// destinationOf returns where a request goes, if a batch may take it there: it does not block, is
// about one key, and stays in the datacenter it names. Global writes go to the primary one by one
// wherever they come in.
func destinationOf(args any) (destination, bool) {
	switch r := args.(type) {
	case *registryv1.GetRequest:
		return destination{datacenter: r.GetDatacenter(), mode: r.GetReadMode()}, r.GetIndex() == 0
	case *registryv1.SetRequest:
		return destination{datacenter: r.GetDatacenter(), write: true}, !maybeGlobal(r)
	case *registryv1.DeleteRequest:
		return destination{datacenter: r.GetDatacenter(), write: true}, !maybeGlobal(r) && !r.GetRecurse()
	}
	return destination{}, false
}

func maybeGlobal(r interface {
	GetKey() string
	GetScope() registryv1.Scope
},
) bool {
	_, scope := kvkey.Split(r.GetKey())
	return r.GetScope() == registryv1.Scope_SCOPE_GLOBAL || scope == registryv1.Scope_SCOPE_GLOBAL
}

// ordinary reports whether a call asks for nothing of its own: metadata and options belong to one
// call.
func ordinary(ctx context.Context, opts []grpc.CallOption) bool {
	if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md) > 0 {
		return false
	}
	for _, o := range opts {
		if _, ok := o.(grpc.StaticMethodCallOption); !ok {
			return false
		}
	}
	return true
}

// queue holds the calls to one destination.
type queue struct {
	owner *batching
	to    destination
	calls *coalesce.Queue[*call]
	// answerBytes is about how large an answer was of late.
	answerBytes atomic.Int64
}

// queue returns the queue of a destination; nil when there are too many.
func (b *batching) queue(to destination) *queue {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[to]
	if q == nil && len(b.queues) < mostDestinations {
		q = &queue{owner: b, to: to}
		q.calls = coalesce.NewQueue(coalesce.Params[*call]{Trips: batchTrips, Capacity: waitingCalls, Take: q.take, Do: q.send})
		b.queues[to] = q
	}
	return q
}

// take returns how many calls fit into one batch.
func (q *queue) take(waiting []*call) int {
	bytes, answer := 0, int(q.answerBytes.Load())
	for n, c := range waiting {
		if bytes += c.bytes + answer; n > 0 && (bytes > batchBytes || n == batchCalls) {
			return n
		}
	}
	return len(waiting)
}

// send carries calls out and answers each of them.
func (q *queue) send(calls []*call) {
	t := &trip{}
	aboard := calls[:0:0]
	for _, c := range calls {
		if t.board(c) {
			aboard = append(aboard, c)
		}
	}
	switch len(aboard) {
	case 0:
	case 1:
		aboard[0].alone(q.owner.next)
	default:
		q.together(t, aboard)
	}
}

func (q *queue) together(t *trip, calls []*call) {
	ctx, cancel := t.context(calls)
	defer cancel()
	request := &registryv1.BatchRequest{Datacenter: q.to.datacenter, ReadMode: q.to.mode, Operations: make([]*registryv1.BatchOperation, len(calls))}
	for i, c := range calls {
		request.Operations[i] = c.operation()
	}
	reply := &registryv1.BatchResponse{}
	err := q.owner.next.Invoke(ctx, registryv1.KVService_Batch_FullMethodName, request, reply, grpc.StaticMethod())
	switch {
	case err == nil && len(reply.GetResults()) == len(calls):
		q.learn(proto.Size(reply) / len(calls))
		for i, c := range calls {
			c.done <- c.outcome(reply.GetResults()[i])
		}
	case err == nil:
		q.singly(calls) // Not what was asked for: whatever it was, it answered nobody.
	case unknownMethod(err):
		q.owner.pausedUntil.Store(time.Now().Add(batchPause).UnixNano())
		q.singly(calls)
	case notUTF8(rpc.FromStatus(err)):
		q.singly(calls) // It is one caller's text, and none of the others' business.
	case tooLarge(err):
		q.learn(2 * batchBytes / len(calls))
		q.singly(calls)
	default:
		for _, c := range calls {
			c.done <- outcome{err: err}
		}
	}
}

// learn notes how large answers are; larger ones count at once, smaller ones by and by.
func (q *queue) learn(bytes int) {
	if old := q.answerBytes.Load(); int64(bytes) < old {
		q.answerBytes.Store((7*old + int64(bytes)) / 8)
		return
	}
	q.answerBytes.Store(int64(bytes))
}

// singly sends calls by themselves after all.
func (q *queue) singly(calls []*call) {
	var wg sync.WaitGroup
	for _, c := range calls {
		wg.Go(func() { c.alone(q.owner.next) })
	}
	wg.Wait()
}

// unknownMethod reports whether the registry is older than batches.
func unknownMethod(err error) bool {
	f := rpc.FromStatus(err)
	return fault.CodeOf(f) == fault.Unimplemented || fault.ReasonOf(f) == rpc.ReasonUnknownMethod
}

// reasonBodyTooLarge is how a gateway refuses a message over its limit.
const reasonBodyTooLarge = "BODY_TOO_LARGE"

// tooLarge reports whether a message did not fit through: by a gateway's words or, of an answer, by
// gRPC's, which have no reason.
func tooLarge(err error) bool {
	f := rpc.FromStatus(err)
	return fault.CodeOf(f) == fault.ResourceExhausted && fault.ReasonOf(f) == "" || fault.ReasonOf(f) == reasonBodyTooLarge
}

// call is one caller's call.
type call struct {
	ctx    context.Context
	method string
	// request is a copy: a caller who leaves may change theirs while it is sent.
	request proto.Message
	kind    protoreflect.MessageType
	bytes   int
	// trip is nil while the call waits.
	trip atomic.Pointer[trip]
	// done receives the outcome; nobody may be there to take it.
	done chan outcome
}

type outcome struct {
	reply proto.Message
	err   error
}

// newCall returns a call that can queue; nil when it is so large that others had better not wait
// for it.
func newCall(ctx context.Context, method string, request, reply proto.Message) *call {
	bytes := proto.Size(request)
	if bytes > largeCall {
		return nil
	}
	return &call{ctx: ctx, method: method, request: proto.Clone(request), kind: reply.ProtoReflect().Type(), bytes: bytes, done: make(chan outcome, 1)}
}

// operation is the call as part of a batch.
func (c *call) operation() *registryv1.BatchOperation {
	switch r := c.request.(type) {
	case *registryv1.GetRequest:
		return &registryv1.BatchOperation{Operation: &registryv1.BatchOperation_Get{Get: r}}
	case *registryv1.SetRequest:
		return &registryv1.BatchOperation{Operation: &registryv1.BatchOperation_Set{Set: r}}
	case *registryv1.DeleteRequest:
		return &registryv1.BatchOperation{Operation: &registryv1.BatchOperation_Delete{Delete: r}}
	}
	return nil
}

// leave is for a caller who will not wait for the outcome.
func (c *call) leave() {
	if t := c.trip.Swap(&trip{}); t != nil {
		t.leave()
	}
}

// outcome returns what a batch says about the call.
func (c *call) outcome(r *registryv1.BatchResult) outcome {
	var reply proto.Message
	switch r := r.GetResult().(type) {
	case *registryv1.BatchResult_Get:
		reply = r.Get
	case *registryv1.BatchResult_Set:
		reply = r.Set
	case *registryv1.BatchResult_Delete:
		reply = r.Delete
	case *registryv1.BatchResult_Status:
		return outcome{err: status.ErrorProto(r.Status)}
	}
	if reply == nil || reply.ProtoReflect().Type() != c.kind {
		return outcome{err: status.Errorf(codes.Internal, "a batch answered %s with %T", c.method, r.GetResult())}
	}
	return outcome{reply: reply}
}

// alone sends the call as it came.
func (c *call) alone(next grpc.ClientConnInterface) {
	reply := c.kind.New().Interface()
	err := next.Invoke(c.ctx, c.method, c.request, reply, grpc.StaticMethod())
	c.done <- outcome{reply, err}
}

// trip is a batch under way. It ends early when every caller has left.
type trip struct {
	mu     sync.Mutex
	aboard int
	cancel context.CancelFunc
}

// board takes a call along, unless its caller has left.
func (t *trip) board(c *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !c.trip.CompareAndSwap(nil, t) {
		return false
	}
	t.aboard++
	return true
}

func (t *trip) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.aboard--; t.aboard == 0 && t.cancel != nil {
		t.cancel()
	}
}

// context lasts as long as a caller waits. What the first one's carries, such as a trace, goes
// along.
func (t *trip) context(calls []*call) (context.Context, context.CancelFunc) {
	ctx := context.WithoutCancel(calls[0].ctx)
	var latest time.Time
	bounded := true
	for _, c := range calls {
		deadline, ok := c.ctx.Deadline()
		bounded = bounded && ok
		if deadline.After(latest) {
			latest = deadline
		}
	}
	var cancel context.CancelFunc
	if bounded {
		ctx, cancel = context.WithDeadline(ctx, latest)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel = cancel
	if t.aboard == 0 {
		cancel()
	}
	return ctx, cancel
}

// moveInto makes reply what answer is; answer is not used afterwards, so nothing is copied.
func moveInto(reply, answer proto.Message) {
	proto.Reset(reply)
	to := reply.ProtoReflect()
	answer.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.Set(field, v)
		return true
	})
	to.SetUnknown(answer.ProtoReflect().GetUnknown())
}
