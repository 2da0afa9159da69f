package sample

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func call(t *testing.T, handler http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody))
	return recorder
}

func TestItSaysWhoItIs(t *testing.T) {
	handler := Handler(Config{Name: "payment-api", Datacenter: "us-east", Instance: "one"})
	for _, path := range []string{"/", "/charge/7"} {
		response := call(t, handler, http.MethodGet, path)
		require.Equal(t, http.StatusOK, response.Code)
		var got map[string]string
		require.NoError(t, json.Unmarshal(response.Body.Bytes(), &got))
		require.Equal(t, map[string]string{"service": "payment-api", "datacenter": "us-east", "instance": "one"}, got)
	}
}

func TestHealthFollowsItsToggle(t *testing.T) {
	handler := Handler(Config{Name: "api", Datacenter: "us-east"})
	require.Equal(t, http.StatusOK, call(t, handler, http.MethodGet, "/health").Code)
	require.Equal(t, http.StatusNoContent, call(t, handler, http.MethodPost, "/health/fail").Code)
	require.Equal(t, http.StatusServiceUnavailable, call(t, handler, http.MethodGet, "/health").Code)
	require.Equal(t, http.StatusNoContent, call(t, handler, http.MethodPost, "/health/pass").Code)
	require.Equal(t, http.StatusOK, call(t, handler, http.MethodGet, "/health").Code)
}

func TestItFinishesOpenRequestsBeforeItEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	inside, release := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-release
		w.WriteHeader(http.StatusTeapot)
	})
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, handler) }()
	status := make(chan int, 1)
	go func() {
		request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, "http://"+listener.Addr().String(), http.NoBody)
		if err != nil {
			close(status)
			return
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			close(status)
			return
		}
		_ = response.Body.Close()
		status <- response.StatusCode
	}()
	<-inside
	cancel()
	close(release)
	require.Equal(t, http.StatusTeapot, <-status)
	require.NoError(t, <-ended)
}

func TestMissingSettingsAreAllNamed(t *testing.T) {
	err := Run(t.Context(), Config{})
	require.ErrorContains(t, err, "--name")
	require.ErrorContains(t, err, "--dc")
	require.ErrorContains(t, err, "--listen")
}

func TestATakenPortIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	err = Run(t.Context(), Config{Name: "api", Datacenter: "us-east", Listen: listener.Addr().String()})
	require.ErrorContains(t, err, listener.Addr().String())
}
