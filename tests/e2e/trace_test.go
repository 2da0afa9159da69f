package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"konsul.dev/tests/framework"
)

// receiver is an OTLP collector that remembers which service of which datacenter had spans in which
// trace.
type receiver struct {
	collectorv1.UnimplementedTraceServiceServer

	mu     sync.Mutex
	traces map[string]map[string]bool
}

func (r *receiver) Export(_ context.Context, request *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		attributes := map[string]string{}
		for _, a := range resource.GetResource().GetAttributes() {
			attributes[a.GetKey()] = a.GetValue().GetStringValue()
		}
		from := attributes["service.name"] + "@" + attributes["konsul.datacenter"]
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				id := hex.EncodeToString(span.GetTraceId())
				if r.traces[id] == nil {
					r.traces[id] = map[string]bool{}
				}
				r.traces[id][from] = true
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func (r *receiver) saw(trace, from string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.traces[trace][from] {
		return fmt.Errorf("trace %s has spans of %v only", trace, r.traces[trace])
	}
	return nil
}

func TestOneRESTQueryAcrossTwoDatacentersIsOneTrace(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	spans := &receiver{traces: map[string]map[string]bool{}}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, spans)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	lab := framework.StartLab(t, framework.LabOptions{Layout: framework.PerService, Args: []string{"--otlp-endpoint", listener.Addr().String()}})

	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	reply := lab.Access(framework.USWest).REST(t, http.MethodGet, "/api/v1/health/services/payment-api?datacenter=eu-central", nil,
		http.Header{"Traceparent": {"00-" + trace + "-00f067aa0ba902b7-01"}})
	require.Equal(t, http.StatusOK, reply.Status, "%s", reply.Body)

	for _, from := range []string{"konsul-gateway@us-west", "konsul-registry@us-west", "konsul-registry@eu-central"} {
		framework.Eventually(t, soon, "spans of "+from+" arrive", func() error { return spans.saw(trace, from) })
	}
}
