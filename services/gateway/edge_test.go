package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/gateway"
)

type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) problem(t *testing.T) map[string]any {
	t.Helper()
	var out map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.body), &out), r.body)
	return out
}

type rest struct {
	client *http.Client
	base   string
}

// rest returns an ordinary HTTPS client that knows the federation's root.
func (r *running) rest(t *testing.T, h2 bool) rest {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots}, ForceAttemptHTTP2: h2}
	if !h2 {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return rest{client: &http.Client{Transport: transport, Timeout: patience}, base: "https://" + r.edge}
}

func (c rest) do(t *testing.T, method, path string, body io.Reader, header ...string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, c.base+path, body)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		if request.Header.Del(header[i]); header[i+1] != "" {
			request.Header.Set(header[i], header[i+1])
		}
	}
	response, err := c.client.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return reply{response.StatusCode, response.Header, string(content)}
}

func newEdge(t *testing.T, change ...func(*gateway.Config)) (*datacenter, *running) {
	t.Helper()
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d := newDatacenter(t, ca, east)
	return d, start(t, ca, d, change...)
}

func TestKVCarriesRawBytes(t *testing.T) {
	_, r := newEdge(t)
	for name, client := range map[string]rest{"HTTP/1.1": r.rest(t, false), "HTTP/2": r.rest(t, true)} {
		t.Run(name, func(t *testing.T) {
			for path, key := range map[string]string{
				"config/app/version": "config/app/version", "percent%2Fslash": "percent/slash", "hundred%25": "hundred%",
				"%C3%A9%20b": "é b", "a:b": "a:b", "twice%252F": "twice%2F", "double//slash": "double//slash", "dots/../x": "dots/../x", "trailing/": "trailing/",
				"mixed%2F50%25": "mixed/50%", "q%3Fmark": "q?mark", "plus+sign": "plus+sign",
			} {
				for kind, value := range map[string]string{
					"binary": "\x00\xff\n\r\x80\"", "empty": "", "text": "plain", "JSON": `{"value":"x"}`, "form": "a=b&cas=1",
				} {
					saved := client.do(t, http.MethodPut, "/api/v1/kv/"+path+"?flags=7", strings.NewReader(value), "Content-Type", "application/x-www-form-urlencoded")
					require.Equal(t, http.StatusOK, saved.status, "%s %s: %s", path, kind, saved.body)
					require.Equal(t, "43", saved.header.Get("X-Konsul-Index"))
					require.Contains(t, saved.header.Get("Content-Type"), "application/json")
					for _, how := range []struct{ query, accept string }{{"?raw", ""}, {"?raw=true&read_mode=READ_MODE_STALE", ""}, {"?raw&read_mode=stale", ""}, {"", "text/html, application/octet-stream;q=0.9"}} {
						got := client.do(t, http.MethodGet, "/api/v1/kv/"+path+how.query, nil, "Accept", how.accept)
						require.Equal(t, http.StatusOK, got.status, got.body)
						require.Equal(t, value, got.body, "%s %s", path, kind)
						require.Equal(t, "application/octet-stream", got.header.Get("Content-Type"))
						require.Equal(t, "42", got.header.Get("X-Konsul-Index"))
						require.Equal(t, east, got.header.Get("X-Konsul-Datacenter"))
						require.Equal(t, "true", got.header.Get("X-Konsul-Known-Leader"))
						require.Equal(t, "3", got.header.Get("X-Konsul-Last-Contact"))
					}
					var document struct {
						Entry struct {
							Key   string
							Value []byte
							Flags string
						}
					}
					got := client.do(t, http.MethodGet, "/api/v1/kv/"+path, nil)
					require.NoError(t, json.Unmarshal([]byte(got.body), &document), got.body)
					require.Equal(t, key, document.Entry.Key)
					require.Equal(t, value, string(document.Entry.Value))
					require.Equal(t, "7", document.Entry.Flags)
				}
			}
		})
	}
}

func TestKVSpeaksJSONWhenAsked(t *testing.T) {
	d, r := newEdge(t)
	client := r.rest(t, true)
	got := client.do(t, http.MethodPut, "/api/v1/kv/k", strings.NewReader(`"AP8="`), "Content-Type", "application/json; charset=utf-8")
	require.Equal(t, http.StatusOK, got.status, got.body)
	d.mu.Lock()
	require.Equal(t, []byte{0, 255}, d.values["k"].GetValue())
	d.mu.Unlock()
	got = client.do(t, http.MethodPut, "/api/v1/kv/k", strings.NewReader(`not JSON`), "Content-Type", "application/json")
	require.Equal(t, http.StatusBadRequest, got.status)
	require.Equal(t, "INVALID_ARGUMENT", got.problem(t)["reason"])

	client.do(t, http.MethodPut, "/api/v1/kv/dir/a", strings.NewReader("1"))
	got = client.do(t, http.MethodDelete, "/api/v1/kv/dir/?recurse", nil)
	require.Contains(t, got.body, `"deleted":"1"`)
}

func TestErrorsSayWhatToDo(t *testing.T) {
	_, r := newEdge(t, func(c *gateway.Config) { c.Gateway.MaxRequestBytes = 2048 })
	client := r.rest(t, true)
	long := strings.Repeat("x", 2049)
	for name, c := range map[string]struct {
		method, path string
		body         io.Reader
		header       []string
		status       int
		want         map[string]any
	}{
		"not found": {http.MethodGet, "/api/v1/kv/none", nil, nil, http.StatusNotFound, map[string]any{
			"code": "NotFound", "message": "no such key", "reason": "KEY_NOT_FOUND", "field": "key", "remedy": "set it",
		}},
		"raw not found": {http.MethodGet, "/api/v1/kv/none?raw", nil, nil, http.StatusNotFound, map[string]any{"reason": "KEY_NOT_FOUND"}},
		"lost race":     {http.MethodPut, "/api/v1/kv/k?cas=3", strings.NewReader("x"), nil, http.StatusConflict, map[string]any{"reason": "CAS_MISMATCH", "field": "cas"}},
		"no leader":     {http.MethodGet, "/api/v1/cluster/status", nil, nil, http.StatusServiceUnavailable, map[string]any{"code": "Unavailable", "reason": "NO_LEADER"}},
		"misspelt": {http.MethodPut, "/api/v1/kv/k?cass=3", strings.NewReader("x"), nil, http.StatusBadRequest, map[string]any{
			"reason": "INVALID_ARGUMENT", "field": "cass", "remedy": "see /openapi.json",
		}},
		"strange name": {http.MethodGet, "/api/v1/kv/k?%1f%22=3", nil, nil, http.StatusBadRequest, map[string]any{"reason": "INVALID_ARGUMENT", "field": "\x1f\""}},
		"no number": {http.MethodGet, "/api/v1/kv/k?index=soon", nil, nil, http.StatusBadRequest, map[string]any{
			"reason": "INVALID_ARGUMENT", "field": "index", "remedy": "write a whole number, 0 or more",
		}},
		"no duration": {http.MethodGet, "/api/v1/kv/k?index=1&wait=long", nil, nil, http.StatusBadRequest, map[string]any{
			"field": "wait", "remedy": "write a number and a unit, such as 30s or 5m",
		}},
		"no such word": {http.MethodGet, "/api/v1/kv/k?read_mode=fresh", nil, nil, http.StatusBadRequest, map[string]any{
			"field": "read_mode", "remedy": "use one of default, stale, linearizable",
		}},
		"no truth": {http.MethodGet, "/api/v1/kv?keys_only=maybe", nil, nil, http.StatusBadRequest, map[string]any{
			"field": "keys_only", "remedy": "write true or false",
		}},
		"given twice": {http.MethodGet, "/api/v1/kv/k?read_mode=stale&readMode=stale", nil, nil, http.StatusBadRequest, map[string]any{"field": "query"}},
		"no JSON": {http.MethodPost, "/api/v1/txn", strings.NewReader("{"), []string{"Content-Type", "application/json"}, http.StatusBadRequest, map[string]any{
			"reason": "INVALID_ARGUMENT", "field": "body", "remedy": "see /openapi.json",
		}},
		"unknown field": {
			http.MethodPut, "/api/v1/catalog/services", strings.NewReader(`{"nodes":{}}`),
			[]string{"Content-Type", "application/json"},
			http.StatusBadRequest,
			map[string]any{"code": "InvalidArgument", "field": "nodes"},
		},
		"too large":          {http.MethodPut, "/api/v1/kv/k", strings.NewReader(long), nil, http.StatusRequestEntityTooLarge, map[string]any{"reason": "BODY_TOO_LARGE", "field": "body"}},
		"too large, chunked": {http.MethodPut, "/api/v1/kv/k", io.MultiReader(strings.NewReader(long)), nil, http.StatusRequestEntityTooLarge, map[string]any{"reason": "BODY_TOO_LARGE"}},
		"no such path":       {http.MethodGet, "/api/v1/nothing", nil, nil, http.StatusNotFound, map[string]any{"reason": "NO_ROUTE"}},
		"no such method":     {http.MethodPost, "/api/v1/kv/k", nil, nil, http.StatusMethodNotAllowed, map[string]any{"reason": "NO_ROUTE"}},
		"Consul's API":       {http.MethodGet, "/v1/kv/x", nil, nil, http.StatusNotFound, map[string]any{"reason": "NO_ROUTE"}},
		"no method override": {http.MethodPost, "/api/v1/kv/k", nil, []string{"X-HTTP-Method-Override", "DELETE", "Content-Type", "application/x-www-form-urlencoded"}, http.StatusMethodNotAllowed, nil},
		"no token":           {http.MethodGet, "/api/v1/kv/k", nil, []string{"Authorization", ""}, http.StatusUnauthorized, map[string]any{"code": "Unauthenticated", "reason": "TOKEN_REQUIRED"}},
		"unknown token":      {http.MethodGet, "/api/v1/kv/k", nil, []string{"Authorization", "Bearer wrong"}, http.StatusUnauthorized, map[string]any{"reason": "TOKEN_UNKNOWN"}},
		"basic":              {http.MethodGet, "/api/v1/kv/k", nil, []string{"Authorization", "Basic " + token}, http.StatusUnauthorized, map[string]any{"reason": "TOKEN_REQUIRED"}},
		"metrics":            {http.MethodGet, "/metrics", nil, []string{"Authorization", ""}, http.StatusUnauthorized, map[string]any{"reason": "TOKEN_REQUIRED"}},
		"privileged":         {http.MethodPost, "/api/v1/ca/join-tokens", strings.NewReader(`{"datacenter":"x"}`), []string{"Authorization", "Bearer " + plainToken, "Content-Type", "application/json"}, http.StatusForbidden, map[string]any{"reason": "PERMISSION_DENIED"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := client.do(t, c.method, c.path, c.body, c.header...)
			require.Equal(t, c.status, got.status, got.body)
			require.Contains(t, got.header.Get("Content-Type"), "application/json")
			problem := got.problem(t)
			for key, want := range c.want {
				require.Equal(t, want, problem[key], got.body)
			}
			require.NotEmpty(t, problem["message"])
			if c.status == http.StatusUnauthorized {
				require.Contains(t, problem["remedy"], "KONSUL_TOKEN")
				require.Equal(t, "Bearer", got.header.Get("WWW-Authenticate"))
			}
		})
	}
	require.Equal(t, "2", client.do(t, http.MethodGet, "/api/v1/cluster/status", nil).header.Get("Retry-After"))
	require.Equal(t, "7", client.do(t, http.MethodGet, "/api/v1/kv/none", nil).header.Get("X-Konsul-Index"), "a client can block on what is not there")
}

func TestEveryPublicAreaAnswers(t *testing.T) {
	_, r := newEdge(t)
	client := r.rest(t, true)
	for _, path := range []string{"/api/v1/federation", "/api/v1/ca/roots", "/api/v1/resolve/api?prefer_local", "/api/v1/health/services/api?passing_only=true"} {
		got := client.do(t, http.MethodGet, path, nil, "Authorization", "", "X-Konsul-Token", token)
		require.Equal(t, http.StatusOK, got.status, "%s: %s", path, got.body)
	}
	created := client.do(t, http.MethodPost, "/api/v1/ca/join-tokens", strings.NewReader(`{"datacenter":"x"}`), "Content-Type", "application/json")
	require.Equal(t, http.StatusOK, created.status, created.body)
	require.Contains(t, client.do(t, http.MethodGet, "/metrics", nil).body, "konsul_gateway_requests_total")

	anonymous := func(path string) reply { return client.do(t, http.MethodGet, path, nil, "Authorization", "") }
	require.Equal(t, "ok\n", anonymous("/healthz").body)
	require.JSONEq(t, `{"ready":true,"parts":{"process":"ok","registry":"ok"}}`, anonymous("/readyz").body)
	var doc map[string]any
	require.NoError(t, json.Unmarshal([]byte(anonymous("/openapi.json").body), &doc))
	require.Contains(t, doc["paths"], "/api/v1/kv/{key}")
}

// dialEdge returns a connection as any gRPC client of a person's makes it.
func (r *running) dialEdge(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(r.edge, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: r.roots})))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

func withToken(t *testing.T, pairs ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, append([]string{"authorization", "Bearer " + token}, pairs...)...)
}

func TestGRPCIsPassedOn(t *testing.T) {
	d, r := newEdge(t)
	conn := r.dialEdge(t)
	kv := registryv1.NewKVServiceClient(conn)
	value := bytes.Repeat([]byte{0, 1, 255}, 300_000)
	_, err := kv.Set(withToken(t), &registryv1.SetRequest{Key: "k", Value: value})
	require.NoError(t, err)
	got, err := kv.Get(withToken(t, "konsul-from-datacenter", "forged", "x-forwarded-for", "forged", "x-custom", "mine"), &registryv1.GetRequest{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, value, got.GetEntry().GetValue())
	d.mu.Lock()
	require.Empty(t, d.metadata.Get("konsul-from-datacenter"), "hop metadata is not the client's to set")
	require.Empty(t, d.metadata.Get("x-forwarded-for"))
	require.Equal(t, []string{"mine"}, d.metadata.Get("x-custom"))
	require.Equal(t, []string{"Bearer " + token}, d.metadata.Get("authorization"))
	d.mu.Unlock()

	_, err = kv.Get(withToken(t), &registryv1.GetRequest{Key: "none"})
	require.Equal(t, codes.NotFound, status.Code(err))
	require.Equal(t, "KEY_NOT_FOUND", fault.ReasonOf(rpc.FromStatus(err)), "details survive")
	resolved, err := failoverrouterv1.NewRouterServiceClient(conn).Resolve(withToken(t), &failoverrouterv1.ResolveRequest{PreferLocal: true})
	require.NoError(t, err)
	require.True(t, resolved.GetFailedOver())
}

func TestGRPCStreamsArePassedOn(t *testing.T) {
	d, r := newEdge(t)
	ctx, cancel := context.WithCancel(withToken(t))
	stream, err := wangossipv1.NewDatacenterServiceClient(r.dialEdge(t)).WatchDatacenters(ctx, &wangossipv1.WatchDatacentersRequest{})
	require.NoError(t, err)
	header, err := stream.Header()
	require.NoError(t, err)
	require.Equal(t, []string{"header"}, header.Get("x-answer"))
	first, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, east, first.GetDatacenter())
	d.learns(west, "10.0.0.1:8443")
	second, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, second.GetDatacenters(), 2)
	cancel()
	for err == nil { // what was under way may still arrive
		_, err = stream.Recv()
	}
	require.Equal(t, codes.Canceled, status.Code(err))

	again, err := wangossipv1.NewDatacenterServiceClient(r.dialEdge(t)).WatchDatacenters(withToken(t), &wangossipv1.WatchDatacentersRequest{})
	require.NoError(t, err)
	_, err = again.Recv()
	require.NoError(t, err)
	close(d.changed)
	_, err = again.Recv()
	require.Equal(t, "STOPPING", fault.ReasonOf(rpc.FromStatus(err)))
	require.Equal(t, []string{"trailer"}, again.Trailer().Get("x-end"))
}

func TestOnlyListedServicesArePublic(t *testing.T) {
	_, r := newEdge(t, func(c *gateway.Config) { c.Gateway.MaxRequestBytes = 2048 })
	conn := r.dialEdge(t)
	for _, method := range []string{
		"/konsul.registry.v1.TokenService/IntrospectToken", "/konsul.registry.v1.TrustService/PutJoinToken",
		"/konsul.federation.v1.ReplicationService/ApplyReplicated", "/konsul.ca.v1.CertificateService/GetGossipKey", "/konsul.ca.v1.CertificateService/Renew",
		"/konsul.ca.v1.EnrollmentService/Enroll", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/nobody/knows",
	} {
		err := conn.Invoke(withToken(t), method, &registryv1.GetRequest{}, &registryv1.GetResponse{})
		require.Equal(t, codes.Unimplemented, status.Code(err), method)
	}
	kv := registryv1.NewKVServiceClient(conn)
	_, err := kv.Get(t.Context(), &registryv1.GetRequest{Key: "k"})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	refused, ok := fault.As(rpc.FromStatus(err))
	require.True(t, ok)
	require.Contains(t, refused.Remedy(), "KONSUL_TOKEN")
	_, err = kv.Set(withToken(t), &registryv1.SetRequest{Key: "k", Value: make([]byte, 4096)})
	tooLarge, ok := fault.As(rpc.FromStatus(err))
	require.True(t, ok)
	require.Equal(t, fault.InvalidArgument, tooLarge.Code())
	require.Equal(t, "BODY_TOO_LARGE", tooLarge.Reason())
	require.Equal(t, "request", tooLarge.Field())
	require.Contains(t, tooLarge.Remedy(), "max_request_bytes")
	plain := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+plainToken)
	_, err = cav1.NewCertificateServiceClient(conn).CreateJoinToken(plain, &cav1.CreateJoinTokenRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	_, err = cav1.NewCertificateServiceClient(conn).CreateJoinToken(withToken(t), &cav1.CreateJoinTokenRequest{})
	require.NoError(t, err)
}

func TestRESTClientsCannotForgeMetadata(t *testing.T) {
	d, r := newEdge(t)
	r.rest(t, true).do(t, http.MethodGet, "/api/v1/kv/k", nil, "Grpc-Metadata-Konsul-From-Datacenter", "forged", "Konsul-From-Server", "forged")
	d.mu.Lock()
	defer d.mu.Unlock()
	require.NotEmpty(t, d.metadata)
	for name := range d.metadata {
		require.NotContains(t, name, "konsul-from")
	}
}

func TestTokensAreRememberedForAWhile(t *testing.T) {
	d, r := newEdge(t, func(c *gateway.Config) { c.Gateway.IntrospectCacheTTL = 100 * time.Millisecond })
	client := r.rest(t, true)
	for range 3 {
		client.do(t, http.MethodGet, "/api/v1/federation", nil)
	}
	d.mu.Lock()
	d.down = errors.New("registry away")
	d.mu.Unlock()
	eventually(t, "asked again", func() bool {
		client.do(t, http.MethodGet, "/api/v1/ca/roots", nil)
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.introspected >= 3
	})
	got := client.do(t, http.MethodGet, "/api/v1/ca/roots", nil)
	require.Equal(t, http.StatusOK, got.status, "a token that was known stays known while the registry is away: %s", got.body)
	got = client.do(t, http.MethodGet, "/api/v1/ca/roots", nil, "Authorization", "Bearer "+plainToken)
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Equal(t, "TOKEN_UNCHECKED", got.problem(t)["reason"])
}

func TestOneCallIsOneTrace(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	ca := identitytest.NewCA(t, identitytest.FederationID)
	d := newDatacenter(t, ca, east)
	r := &running{telemetry: obs.Discard(), roots: x509.NewCertPool()}
	r.telemetry.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	r.start(t, ca, d)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent := "00-" + trace + "-00f067aa0ba902b7-01"

	r.rest(t, true).do(t, http.MethodGet, "/api/v1/kv/k", nil, "Traceparent", parent)
	d.mu.Lock()
	seen := d.metadata.Get("traceparent")
	d.mu.Unlock()
	require.Len(t, seen, 1)
	require.Contains(t, seen[0], trace)
	_, err := registryv1.NewKVServiceClient(r.dialEdge(t)).Get(withToken(t, "traceparent", parent), &registryv1.GetRequest{Key: "k"})
	require.Equal(t, codes.NotFound, status.Code(err))
	d.mu.Lock()
	seen = d.metadata.Get("traceparent")
	d.mu.Unlock()
	require.Len(t, seen, 1)
	require.Contains(t, seen[0], trace)
	names := map[string]bool{}
	eventually(t, "both server spans", func() bool {
		for _, span := range spans.GetSpans() {
			if span.SpanContext.TraceID().String() == trace {
				names[span.Name] = true
			}
		}
		return names["GET /api/v1/kv"] && names["konsul.registry.v1.KVService/Get"]
	})
}
