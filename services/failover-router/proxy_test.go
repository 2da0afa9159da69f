package failoverrouter_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/identity"
	failoverrouter "konsul.dev/services/failover-router"
)

type answer struct {
	status  int
	body    string
	header  http.Header
	problem struct {
		Reason      string
		Field       string
		Datacenters []struct{ Datacenter, Error string }
		Tries       []struct{ Datacenter, Instance, Error string }
	}
}

func (r *running) send(t *testing.T, method, host, body string, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.ProxyAddr()+"/path?q=1", strings.NewReader(body))
	require.NoError(t, err)
	req.Host = host
	for name, values := range header {
		req.Header[name] = values
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	a := answer{status: resp.StatusCode, body: string(content), header: resp.Header}
	if strings.HasPrefix(a.body, `{"error"`) {
		require.NoError(t, json.Unmarshal(content, &struct{ Error any }{&a.problem}))
	}
	return a
}

// says returns a handler that says a name, and what it was sent.
func says(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, name+" "+r.Method+" "+r.Host+r.URL.String()+" "+string(content))
	}
}

// dies reads a request and hangs up.
func dies(calls *atomic.Int32) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		calls.Add(1)
		panic(http.ErrAbortHandler)
	}
}

func TestProxyTakesRequestsToTheOwnDatacenter(t *testing.T) {
	w := newWorld(t)
	var traceparent, forwarded atomic.Value
	address := w.backend(t, "", func(rw http.ResponseWriter, r *http.Request) {
		traceparent.Store(r.Header.Get("Traceparent"))
		forwarded.Store(r.Header.Get("X-Forwarded-For"))
		rw.Header().Set("X-Konsul-Datacenter", "a lie")
		says("e1")(rw, r)
	})
	w.set(east, instance("e1", address))
	r := w.start(t)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, host := range []string{"api", "api:8553", "api.service.konsul", "api.service.us-east.konsul", "api.service.konsul.:8553"} {
		a := r.send(t, http.MethodPost, host, "hello", http.Header{"Traceparent": {parent}})
		require.Equal(t, http.StatusOK, a.status, a.body)
		require.Equal(t, "e1 POST "+host+"/path?q=1 hello", a.body)
		require.Equal(t, []string{east}, a.header["X-Konsul-Datacenter"])
		require.Equal(t, "e1", a.header.Get("X-Konsul-Instance"))
		require.Equal(t, parent[:35], traceparent.Load().(string)[:35], "the trace goes on")
		require.Equal(t, "127.0.0.1", forwarded.Load())
	}
	a := r.send(t, http.MethodGet, "whatever.example.com", "", http.Header{"X-Konsul-Service": {"api"}})
	require.Equal(t, http.StatusOK, a.status, a.body)
}

func TestProxyRefusesWhatNamesNoService(t *testing.T) {
	r := newWorld(t).start(t)
	for _, host := range []string{"127.0.0.1:8553", "www.example.com", "api.service.US.konsul"} {
		a := r.send(t, http.MethodGet, host, "", nil)
		require.Equal(t, http.StatusBadRequest, a.status, host)
		require.Equal(t, "Host", a.problem.Field)
	}
	require.Equal(t, "method", r.send(t, http.MethodConnect, "api", "", nil).problem.Field)
}

func TestProxySaysWhyThereIsNobody(t *testing.T) {
	w := newWorld(t)
	r := w.start(t)
	w.lose(eu)
	require.Eventually(t, func() bool {
		a := r.send(t, http.MethodGet, "api", "", nil)
		require.Equal(t, http.StatusServiceUnavailable, a.status)
		require.Equal(t, "NO_HEALTHY_INSTANCE", a.problem.Reason)
		require.Len(t, a.problem.Datacenters, 3)
		return a.problem.Datacenters[2].Datacenter == eu && a.problem.Datacenters[2].Error != ""
	}, patience, 10*time.Millisecond)
}

func TestProxyReachesOtherDatacentersThroughGateways(t *testing.T) {
	w := newWorld(t)
	w.set(west, instance("w1", w.backend(t, west, says("w1"))))
	r := w.start(t)
	a := r.send(t, http.MethodPost, "api", "hello", nil)
	require.Equal(t, "w1 POST api/path?q=1 hello", a.body)
	require.Equal(t, west, a.header.Get("X-Konsul-Datacenter"))
	require.Empty(t, a.header.Get("X-Konsul-Instance"), "the gateway there has chosen")
	require.Equal(t, []identity.ID{w.ca.Source(east, "failover-router").ID()}, w.peers, "it showed its own identity")
}

func TestProxyGoesOnToTheNextWhenNothingWasSent(t *testing.T) {
	w := newWorld(t)
	w.set(east, instance("dead-1", nowhere(t)), instance("dead-2", nowhere(t)))
	w.set(west, instance("w1", w.backend(t, west, says("w1"))))
	r := w.start(t)
	a := r.send(t, http.MethodPost, "api", "hello", nil)
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.Equal(t, "w1 POST api/path?q=1 hello", a.body, "after both local instances")
	require.Equal(t, west, a.header.Get("X-Konsul-Datacenter"))
	metric(t, r, "konsul_failover_proxy_retries_total", 2)
	metric(t, r, "konsul_failover_proxy_ejections_total", 2)

	require.Equal(t, http.StatusOK, r.send(t, http.MethodGet, "api", "", nil).status)
	metric(t, r, "konsul_failover_proxy_retries_total", 2) // a target that failed is not tried again for a while
}

func TestProxyTriesEjectedTargetsRatherThanNone(t *testing.T) {
	w := newWorld(t)
	address := nowhere(t)
	w.set(east, instance("e1", address))
	r := w.start(t)
	a := r.send(t, http.MethodGet, "api", "", nil)
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Len(t, a.problem.Tries, 1)
	require.Equal(t, "e1", a.problem.Tries[0].Instance)
	w.set(east, instance("e1", w.backend(t, "", says("e1"))))
	require.Equal(t, http.StatusOK, r.send(t, http.MethodGet, "api", "", nil).status)

	w.set(east, instance("e1", address))
	a = r.send(t, http.MethodGet, "api", "", nil)
	require.Len(t, a.problem.Tries, 1, "an ejected target is tried once more, not left out")
}

func TestProxyRepeatsWhatMayBeRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		header http.Header
		body   string
		status int
		calls  int32
	}{
		"get":                 {method: http.MethodGet, status: http.StatusOK, calls: 1},
		"put with its body":   {method: http.MethodPut, body: "hello", status: http.StatusOK, calls: 1},
		"post":                {method: http.MethodPost, body: "hello", status: http.StatusBadGateway, calls: 1},
		"post with a key":     {method: http.MethodPost, body: "hello", header: http.Header{"Idempotency-Key": {"1"}}, status: http.StatusOK, calls: 1},
		"put with a big body": {method: http.MethodPut, body: strings.Repeat("x", 70<<10), status: http.StatusBadGateway, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var calls atomic.Int32
			w.set(east, instance("e1", w.backend(t, "", dies(&calls))))
			w.set(west, instance("w1", w.backend(t, west, says("w1"))))
			a := w.start(t).send(t, c.method, "api", c.body, c.header)
			require.Equal(t, c.status, a.status, a.body)
			require.Equal(t, c.calls, calls.Load())
			if c.status == http.StatusOK {
				require.True(t, strings.HasSuffix(a.body, " "+c.body), a.body)
			} else {
				require.Equal(t, "OUTCOME_UNKNOWN", a.problem.Reason)
			}
		})
	}
}

func TestProxyGivesUpAfterItsRetries(t *testing.T) {
	w := newWorld(t)
	w.set(east, instance("a", nowhere(t)), instance("b", nowhere(t)), instance("c", nowhere(t)), instance("d", nowhere(t)))
	r := w.start(t, func(c *failoverrouter.Config) { c.FailoverRouter.MaxRetries = 2 })
	a := r.send(t, http.MethodGet, "api", "", nil)
	require.Equal(t, "UPSTREAMS_FAILED", a.problem.Reason)
	require.Len(t, a.problem.Tries, 3)
}

func TestProxyStreams(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.set(west, instance("w1", w.backend(t, west, func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "first")
		rw.(http.Flusher).Flush()
		<-release
	})))
	r := w.start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.ProxyAddr(), http.NoBody)
	require.NoError(t, err)
	req.Host = "api"
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	resp, err := client.Do(req)
	require.NoError(t, err)
	first := make([]byte, 5)
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	require.Equal(t, "first", string(first), "what is there is not held back")
	close(release)
	require.NoError(t, resp.Body.Close())
}

func metric(t *testing.T, r *running, name string, want float64) {
	t.Helper()
	families, err := r.telemetry.Metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			require.InDelta(t, want, f.GetMetric()[0].GetCounter().GetValue(), 0, name)
			return
		}
	}
	require.Fail(t, "no metric", name)
}

func TestProxyDoesNotCallItself(t *testing.T) {
	w := newWorld(t)
	r := w.start(t)
	w.set(east, instance("itself", r.ProxyAddr()))
	a := r.send(t, http.MethodGet, "api", "", nil)
	require.Equal(t, http.StatusLoopDetected, a.status, a.body)
	require.Equal(t, "PROXY_LOOP", a.problem.Reason)
	require.Len(t, a.problem.Tries, 1)
	require.Equal(t, "itself", a.problem.Tries[0].Instance)

	w.set(east, instance("itself", r.ProxyAddr()), instance("e1", w.backend(t, "", says("e1"))))
	for range 10 {
		a = r.send(t, http.MethodPost, "api", "hello", nil)
		require.Equal(t, http.StatusOK, a.status, a.body)
		require.Equal(t, "e1", a.header.Get("X-Konsul-Instance"))
	}
}

func TestARequestThatGoesRoundIsStopped(t *testing.T) {
	w := newWorld(t)
	r := w.start(t, func(c *failoverrouter.Config) { c.FailoverRouter.ProxyMaxHops = 4 })
	var calls atomic.Int32
	w.set(east, instance("e1", w.backend(t, "", func(rw http.ResponseWriter, in *http.Request) {
		if calls.Add(1) > 100 {
			rw.WriteHeader(http.StatusTeapot) // the test has failed; let it end
			return
		}
		a := r.send(t, http.MethodGet, in.Host, "", in.Header)
		rw.WriteHeader(a.status)
		_, _ = io.WriteString(rw, a.body)
	})))
	a := r.send(t, http.MethodGet, "api", "", nil)
	require.Equal(t, http.StatusLoopDetected, a.status, a.body)
	require.Contains(t, a.body, "PROXY_LOOP")
	require.Equal(t, int32(4), calls.Load())
	for _, bad := range []string{"many", "-1", "1e3"} {
		a = r.send(t, http.MethodGet, "api", "", http.Header{"X-Konsul-Hops": {bad}})
		require.Equal(t, http.StatusBadRequest, a.status)
		require.Equal(t, "X-Konsul-Hops", a.problem.Field)
	}
}

func TestSilentCallersOfTheProxyKeepNobodyOut(t *testing.T) {
	w := newWorld(t)
	w.set(east, instance("e1", w.backend(t, "", says("e1"))))
	r := w.start(t, func(c *failoverrouter.Config) { c.FailoverRouter.ProxyMaxConnections = 8 })
	for range 50 {
		conn, err := net.Dial("tcp", r.ProxyAddr())
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
	}
	require.Equal(t, http.StatusOK, r.send(t, http.MethodGet, "api", "", nil).status)
	metric(t, r, "konsul_failover_proxy_connections_refused_total", 49)
}
