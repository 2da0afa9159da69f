package keys

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/requestid"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
)

// maxBatch bounds the operations of one batch.
const maxBatch = 1000

// ReadsOnly reports whether a batch changes nothing: it is then routed as a read.
func ReadsOnly(req *registryv1.BatchRequest) bool {
	return !slices.ContainsFunc(req.GetOperations(), func(op *registryv1.BatchOperation) bool { return op.GetGet() == nil })
}

// Batch carries out many calls in one. Its reads see one state, its writes share the way to the
// leader, and what belongs to the primary takes its own way there.
func (s *Service) Batch(ctx context.Context, req *registryv1.BatchRequest) (*registryv1.BatchResponse, error) {
	if n := len(req.GetOperations()); n == 0 || n > maxBatch {
		return nil, fault.Invalid("operations", "are %d; 1 to %d are allowed", n, maxBatch).WithRemedy("make several batches of it")
	}
	b := batch{Service: s, results: make([]*registryv1.BatchResult, len(req.GetOperations()))}
	for i, op := range req.GetOperations() {
		if err := b.plan(ctx, i, op); err != nil {
			b.fail(i, err)
		}
	}
	read := b.read
	if !ReadsOnly(req) {
		read = func(ctx context.Context) error { return b.delegate(ctx, req) }
	}
	if err := read(ctx); err != nil {
		return nil, err
	}
	b.write(ctx)
	for _, f := range b.far {
		result, err := f.call(ctx)
		b.settle(f.at, result, err)
	}
	return &registryv1.BatchResponse{Results: b.results}, nil
}

type batch struct {
	*Service
	results []*registryv1.BatchResult
	reads   []batchRead
	writes  []batchWrite
	far     []batchFar
}

type batchRead struct {
	at  int
	key record.Key
	req *registryv1.GetRequest
}

type batchWrite struct {
	at     int
	cmd    *registryv1.Command
	answer func(*registryv1.CommandResult) (*registryv1.BatchResult, error)
}

// batchFar is an operation that goes to the primary by a call of its own.
type batchFar struct {
	at   int
	call func(ctx context.Context) (*registryv1.BatchResult, error)
}

func (b *batch) fail(at int, err error) {
	b.results[at] = &registryv1.BatchResult{Result: &registryv1.BatchResult_Status{Status: rpc.ToStatus(err).Proto()}}
}

// settle keeps the answer of one operation or why there is none.
func (b *batch) settle(at int, result *registryv1.BatchResult, err error) {
	if err != nil {
		b.fail(at, err)
		return
	}
	b.results[at] = result
}

// plan asks for the permissions of each operation as its own call would.
func (b *batch) plan(ctx context.Context, at int, op *registryv1.BatchOperation) error {
	switch op := op.GetOperation().(type) {
	case *registryv1.BatchOperation_Get:
		key, malformed := kv.KeyOf(ctx, op.Get)
		needs := needsOfKey(op.Get, key, malformed, acl.Read)
		if err := cmp.Or(b.Permit(ctx, registryv1.KVService_Get_FullMethodName, needs), malformed); err != nil {
			return err
		}
		return b.planGet(ctx, at, key, op.Get)
	case *registryv1.BatchOperation_Set:
		key, malformed := kv.KeyOf(ctx, op.Set)
		needs := needsOfKey(op.Set, key, malformed, acl.Write)
		if err := cmp.Or(b.Permit(ctx, registryv1.KVService_Set_FullMethodName, needs), malformed); err != nil {
			return err
		}
		return b.planSet(at, key, op.Set)
	case *registryv1.BatchOperation_Delete:
		key, malformed := kv.KeyOf(ctx, op.Delete)
		needs := needsOfKey(op.Delete, key, malformed, acl.Delete)
		if err := cmp.Or(b.Permit(ctx, registryv1.KVService_Delete_FullMethodName, needs), malformed); err != nil {
			return err
		}
		return b.planDelete(at, key, op.Delete)
	}
	return fault.Invalid("operation", "is none of get, set and delete")
}

func (b *batch) planGet(ctx context.Context, at int, key record.Key, req *registryv1.GetRequest) error {
	if req.GetIndex() > 0 {
		return fault.Invalid("index", "makes a read block, which a batch cannot").WithRemedy("call Get by itself")
	}
	if req.GetAtIndex() > 0 {
		return fault.Invalid("at_index", "is not the state that a batch reads").WithRemedy("call Get by itself")
	}
	b.Operations.WithLabelValues("get").Inc()
	b.reads = append(b.reads, batchRead{at, narrow(ctx, key), req})
	return nil
}

func (b *batch) planSet(at int, key record.Key, req *registryv1.SetRequest) error {
	cmd, err := b.Writer.Set(key, req)
	if err == nil {
		err = api.CheckRequestID(req.GetRequestId())
	}
	if err != nil {
		return err
	}
	if b.belongsElsewhere(key) {
		b.far = append(b.far, batchFar{at, func(ctx context.Context) (*registryv1.BatchResult, error) {
			resp, err := route(ctx, b.Router, registryv1.KVService_Set_FullMethodName, req, b.Set)
			return &registryv1.BatchResult{Result: &registryv1.BatchResult_Set{Set: resp}}, err
		}})
		return nil
	}
	b.Operations.WithLabelValues("set").Inc()
	cmd.Digest = fsm.DigestOf(req)
	b.writes = append(b.writes, batchWrite{at, cmd, func(result *registryv1.CommandResult) (*registryv1.BatchResult, error) {
		resp, err := b.setResponse(result, key, req)
		return &registryv1.BatchResult{Result: &registryv1.BatchResult_Set{Set: resp}}, err
	}})
	return nil
}

func (b *batch) planDelete(at int, key record.Key, req *registryv1.DeleteRequest) error {
	if req.GetRecurse() {
		return fault.Invalid("recurse", "may take several commits, which a batch cannot").WithRemedy("call Delete by itself")
	}
	cmd, err := b.Writer.Delete(key, req)
	if err == nil {
		err = api.CheckRequestID(req.GetRequestId())
	}
	if err != nil {
		return err
	}
	if b.belongsElsewhere(key) {
		b.far = append(b.far, batchFar{at, func(ctx context.Context) (*registryv1.BatchResult, error) {
			resp, err := route(ctx, b.Router, registryv1.KVService_Delete_FullMethodName, req, b.Delete)
			return &registryv1.BatchResult{Result: &registryv1.BatchResult_Delete{Delete: resp}}, err
		}})
		return nil
	}
	b.Operations.WithLabelValues("delete").Inc()
	cmd.Digest = fsm.DigestOf(req)
	b.writes = append(b.writes, batchWrite{at, cmd, func(result *registryv1.CommandResult) (*registryv1.BatchResult, error) {
		resp, err := b.deleteResponse(result, key)
		return &registryv1.BatchResult{Result: &registryv1.BatchResult_Delete{Delete: resp}}, err
	}})
	return nil
}

func (b *batch) belongsElsewhere(key record.Key) bool {
	return key.Write() == registryv1.Scope_SCOPE_GLOBAL && !b.Federation.IsPrimary()
}

// route sends a call the way it would have gone by itself.
func route[Req, Resp any](ctx context.Context, r Router, method string, req *Req, handle func(context.Context, *Req) (*Resp, error)) (*Resp, error) {
	resp, err := r.Unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		return handle(ctx, req)
	})
	answer, _ := resp.(*Resp)
	return answer, err
}

// read returns the reads from the state here.
func (b *batch) read(context.Context) error {
	return b.Store.View(func(r record.Reader) error {
		local, global := b.QueryMeta(r.Index()), b.GlobalMeta(r.Index())
		for _, read := range b.reads {
			entry, _, err := kv.Get(r, read.key)
			if err == nil && entry == nil {
				err = api.WithIndex(kv.NotFound(read.key), r.Index())
			}
			meta := local
			if entry.GetScope() == registryv1.Scope_SCOPE_GLOBAL {
				meta = global
			}
			b.settle(read.at, &registryv1.BatchResult{Result: &registryv1.BatchResult_Get{Get: &registryv1.GetResponse{Entry: entry, Meta: meta}}}, err)
		}
		return nil
	})
}

// delegate lets the reads go as a batch of their own to whichever server may answer them.
func (b *batch) delegate(ctx context.Context, req *registryv1.BatchRequest) error {
	if len(b.reads) == 0 {
		return nil
	}
	reads := &registryv1.BatchRequest{ReadMode: req.GetReadMode()}
	for _, read := range b.reads {
		reads.Operations = append(reads.Operations, &registryv1.BatchOperation{Operation: &registryv1.BatchOperation_Get{Get: read.req}})
	}
	resp, err := route(ctx, b.Router, registryv1.KVService_Batch_FullMethodName, reads, b.Batch)
	if err != nil {
		return err
	}
	for i, read := range b.reads {
		b.results[read.at] = resp.GetResults()[i]
	}
	return nil
}

func (b *batch) write(ctx context.Context) {
	if len(b.writes) == 0 {
		return
	}
	cmds := make([]*registryv1.Command, len(b.writes))
	for i, w := range b.writes {
		cmds[i] = w.cmd
	}
	for i, outcome := range b.Proposer.Propose(ctx, cmds...) {
		w := b.writes[i]
		if outcome.Err != nil {
			b.fail(w.at, requestid.Explain(outcome.Err, w.cmd.GetRequestId()))
			continue
		}
		result, err := w.answer(outcome.Result)
		b.settle(w.at, result, err)
	}
}
