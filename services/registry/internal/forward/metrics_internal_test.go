package forward

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/method"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestALabelIsNoNameThatACallerMadeUp(t *testing.T) {
	w := &world{leader: "s1"}
	r := newRouter(t, w)
	exists := false
	served, err := method.Served("registry")
	require.NoError(t, err)
	i := slices.IndexFunc(served, func(m method.Method) bool { return m.FullName == registryv1.CatalogService_QueryService_FullMethodName })
	query, err := newRoute(served[i], Functions{})
	require.NoError(t, err)
	query.Reply = func() proto.Message {
		reply := &registryv1.QueryServiceResponse{}
		if exists {
			reply.Instances = []*registryv1.ServiceInstance{{}}
		}
		return reply
	}
	r.Routes["/query"] = query
	ask := func(service string) {
		require.NoError(t, w.do(t.Context(), t, r, "/query", &registryv1.QueryServiceRequest{Service: service, Datacenter: "dc2"}))
	}
	count := func(service string) int {
		return int(testutil.ToFloat64(r.Metrics.queries.WithLabelValues("dc1", "dc2", service)))
	}
	for i := range 100 {
		ask(fmt.Sprintf("made-up-%d", i))
	}
	require.Equal(t, 1, testutil.CollectAndCount(r.Metrics.queries))
	require.Equal(t, 100, count(unknownService))
	exists = true
	ask("web")
	exists = false
	ask("web") // None of its instances passes now.
	require.Equal(t, 2, count("web"))
	exists = true
	for i := range 2 * mostServices {
		ask(fmt.Sprintf("web-%d", i))
	}
	require.Equal(t, 1+mostServices, testutil.CollectAndCount(r.Metrics.queries), "nor is one that was registered by the thousand")
}
