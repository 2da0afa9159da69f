package konsultest

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/rpc"
)

// batch returns every operation as the call it stands for, all at the same time.
func (g *Gateway) batch(ctx context.Context, batch *registryv1.BatchRequest) *registryv1.BatchResponse {
	response := &registryv1.BatchResponse{Results: make([]*registryv1.BatchResult, len(batch.GetOperations()))}
	var wg sync.WaitGroup
	for i, operation := range batch.GetOperations() {
		wg.Go(func() { response.Results[i] = g.operation(ctx, operation) })
	}
	wg.Wait()
	return response
}

func (g *Gateway) operation(ctx context.Context, operation *registryv1.BatchOperation) *registryv1.BatchResult {
	var request proto.Message
	switch o := operation.GetOperation().(type) {
	case *registryv1.BatchOperation_Get:
		request = o.Get
	case *registryv1.BatchOperation_Set:
		request = o.Set
	case *registryv1.BatchOperation_Delete:
		request = o.Delete
	}
	answer, err := g.answer(ctx, request)
	if err != nil {
		return &registryv1.BatchResult{Result: &registryv1.BatchResult_Status{Status: rpc.ToStatus(err).Proto()}}
	}
	result := &registryv1.BatchResult{}
	switch a := answer.(type) {
	case *registryv1.GetResponse:
		result.Result = &registryv1.BatchResult_Get{Get: a}
	case *registryv1.SetResponse:
		result.Result = &registryv1.BatchResult_Set{Set: a}
	case *registryv1.DeleteResponse:
		result.Result = &registryv1.BatchResult_Delete{Delete: a}
	}
	return result
}
