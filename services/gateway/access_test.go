package gateway_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/services/gateway"
)

// TestServicesThatKeepNoTokensAreAskedForAtTheRegistry goes through both faces.
func TestServicesThatKeepNoTokensAreAskedForAtTheRegistry(t *testing.T) {
	d, r := newEdge(t)
	client := r.rest(t, true)
	as := func(secret string) []string {
		return []string{"Authorization", "Bearer " + secret, "Content-Type", "application/json"}
	}
	for path, want := range map[string]int{
		"/api/v1/resolve/free": http.StatusOK, "/api/v1/resolve/paid": http.StatusForbidden, "/api/v1/datacenters": http.StatusForbidden,
		"/metrics": http.StatusForbidden, "/api/v1/ca/roots": http.StatusOK,
	} {
		got := client.do(t, http.MethodGet, path, nil, as(plainToken)...)
		require.Equal(t, want, got.status, "%s: %s", path, got.body)
		if want == http.StatusForbidden {
			require.Equal(t, "PERMISSION_DENIED", got.problem(t)["reason"])
		}
	}
	conn := r.dialEdge(t)
	plain := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+plainToken)
	router := failoverrouterv1.NewRouterServiceClient(conn)
	_, err := router.Resolve(plain, &failoverrouterv1.ResolveRequest{Service: "free"})
	require.NoError(t, err)
	_, err = router.Resolve(plain, &failoverrouterv1.ResolveRequest{Service: "paid"})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.ErrorContains(t, err, "lacks service:read on paid")
	stream, err := wangossipv1.NewDatacenterServiceClient(conn).WatchDatacenters(plain, &wangossipv1.WatchDatacentersRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)

	// A management token costs no question, but making a join token is told to the registry.
	d.mu.Lock()
	d.authorized = nil
	d.mu.Unlock()
	require.NotEqual(t, http.StatusForbidden, client.do(t, http.MethodGet, "/api/v1/datacenters", nil).status)
	require.Equal(t, http.StatusOK, client.do(t, http.MethodGet, "/metrics", nil).status)
	require.Equal(t, http.StatusOK, client.do(t, http.MethodPost, "/api/v1/ca/join-tokens", strings.NewReader(`{"datacenter":"x"}`), as(token)...).status)
	d.mu.Lock()
	defer d.mu.Unlock()
	require.Len(t, d.authorized, 1)
	require.Equal(t, cav1.CertificateService_CreateJoinToken_FullMethodName, d.authorized[0].GetMethod())
	require.Equal(t, "x", d.authorized[0].GetNeeds()[0].GetName())
}

func TestRequestsWithoutATokenAreTheAnonymousTokens(t *testing.T) {
	d, r := newEdge(t, func(c *gateway.Config) { c.Gateway.IntrospectCacheTTL = 100 * time.Millisecond })
	client := r.rest(t, true)
	asked := func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.introspected
	}
	start := time.Now()
	for range 20 {
		require.Equal(t, http.StatusUnauthorized, client.do(t, http.MethodGet, "/api/v1/kv/k", nil, "Authorization", "").status)
	}
	require.LessOrEqual(t, asked(), 1+int(time.Since(start)/(100*time.Millisecond)), "strangers do not make the registry work")
	d.mu.Lock()
	d.anonymous = true
	d.mu.Unlock()
	eventually(t, "let in", func() bool {
		return client.do(t, http.MethodGet, "/api/v1/kv/k", nil, "Authorization", "").status == http.StatusNotFound
	})
	d.mu.Lock()
	sent := d.metadata.Get("authorization")
	d.mu.Unlock()
	require.Equal(t, []string{"Bearer anonymous"}, sent, "the gateway does not lend its own name")
	_, err := registryv1.NewKVServiceClient(r.dialEdge(t)).Get(t.Context(), &registryv1.GetRequest{Key: "k"})
	require.Equal(t, codes.NotFound, status.Code(err))
	require.Equal(t, http.StatusForbidden, client.do(t, http.MethodGet, "/api/v1/datacenters", nil, "Authorization", "").status)
}

func TestTheFirstTokenIsMadeWithoutOne(t *testing.T) {
	d, r := newEdge(t)
	client := r.rest(t, true)
	for _, header := range []string{"", "Bearer wrong"} {
		got := client.do(t, http.MethodPost, "/api/v1/acl/bootstrap", strings.NewReader("{}"), "Authorization", header, "Content-Type", "application/json")
		require.Equal(t, http.StatusOK, got.status, got.body)
		require.Contains(t, got.body, `"secret":"first"`)
	}
	d.mu.Lock()
	require.Empty(t, d.metadata.Get("authorization"))
	d.mu.Unlock()
	answer, err := registryv1.NewACLServiceClient(r.dialEdge(t)).Bootstrap(t.Context(), &registryv1.BootstrapRequest{})
	require.NoError(t, err)
	require.Equal(t, "first", answer.GetSecret())
	for _, path := range []string{"/api/v1/acl/tokens", "/api/v1/acl/bootstrap/", "/api/v1/acl%2Fbootstrap"} {
		got := client.do(t, http.MethodPost, path, strings.NewReader("{}"), "Authorization", "", "Content-Type", "application/json")
		require.Equal(t, http.StatusUnauthorized, got.status, "%s: %s", path, got.body)
	}
}

func TestAnExpiredTokenIsNotBelievedWhileTheRegistryIsAway(t *testing.T) {
	d, r := newEdge(t, func(c *gateway.Config) { c.Gateway.IntrospectCacheTTL = 20 * time.Millisecond })
	d.mu.Lock()
	d.expires = timestamppb.New(time.Now().Add(time.Second))
	d.mu.Unlock()
	client := r.rest(t, true)
	roots := func() int {
		return client.do(t, http.MethodGet, "/api/v1/ca/roots", nil, "Authorization", "Bearer "+plainToken).status
	}
	require.Equal(t, http.StatusOK, roots())
	d.mu.Lock()
	d.down = errors.New("registry away")
	d.mu.Unlock()
	eventually(t, "refused", func() bool { return roots() == http.StatusServiceUnavailable })
	require.False(t, time.Now().Before(d.expires.AsTime()))
}
