package checks_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/servicedef"
	"konsul.dev/services/agent/internal/checks"
	"konsul.dev/services/agent/internal/local"
)

func probe(t *testing.T, check servicedef.Check) local.Outcome {
	t.Helper()
	if check.Timeout == 0 {
		check.Timeout = 5 * time.Second
	}
	return checks.NewProber().Probe(t.Context(), check)
}

func TestHTTP(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/429":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/503":
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, "database\nis gone\x00"+strings.Repeat("é", 1000))
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/hang":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-release
		default:
			fmt.Fprint(w, time.Now())
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	for path, c := range map[string]struct {
		status registryv1.HealthStatus
		output string
	}{
		"/ok":    {passing, "200 OK"},
		"/204":   {passing, "204"},
		"/429":   {warning, "429"},
		"/503":   {critical, "503 Service Unavailable: database is gone"},
		"/moved": {passing, "200 OK"},
		"/loop":  {critical, "redirects"},
		"/hang":  {critical, "no answer within 200ms"},
	} {
		t.Run(path, func(t *testing.T) {
			outcome := probe(t, servicedef.Check{HTTP: server.URL + path, Timeout: 200 * time.Millisecond})
			require.Equal(t, c.status, outcome.Status, outcome.Output)
			require.Contains(t, outcome.Output, c.output)
			require.LessOrEqual(t, utf8.RuneCountInString(outcome.Output), 256)
			require.NotContains(t, outcome.Output, "\n")
		})
	}
	healthy := servicedef.Check{HTTP: server.URL + "/ok"}
	first := probe(t, healthy)
	require.Equal(t, first, probe(t, healthy), "a changing body is no news")
}

func TestTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	check := servicedef.Check{TCP: listener.Addr().String()}
	require.Equal(t, passing, probe(t, check).Status)
	require.NoError(t, listener.Close())
	first := probe(t, check)
	require.Equal(t, critical, first.Status)
	require.Contains(t, first.Output, "connection refused")
	require.Equal(t, first, probe(t, check), "the same failure reads the same")
	require.Equal(t, critical, probe(t, servicedef.Check{HTTP: "http://" + listener.Addr().String()}).Status)
}

func TestConnectionThatNeverAnswersTimesOut(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
	}()
	outcome := probe(t, servicedef.Check{HTTP: "http://" + listener.Addr().String(), Timeout: 100 * time.Millisecond})
	require.Equal(t, critical, outcome.Status)
	require.Contains(t, outcome.Output, "no answer within 100ms")
}
