// Package ops serves what an operator's tools ask of a process: metrics, liveness and readiness.
//
// They are served twice: on a unix socket in the data folder, for probes that run beside the
// process (its own `health` subcommand), and over mutual TLS on telemetry.addr, for Prometheus.
// Nothing is served in the clear over the network.
package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
)

// What a client of these pages may take: they are small, and have no bodies.
const (
	readTimeout = 5 * time.Second
	headerBytes = 64 << 10
)

// maxSocketPath is what a unix socket address holds on Linux (sun_path), with room for the
// terminator.
const maxSocketPath = 107

const (
	// maxConnections is enough for the Prometheus servers and people of a datacenter.
	maxConnections = 256
	idleTimeout    = 2 * time.Minute
)

// Check returns nil when what it looks at is ready.
type Check func(context.Context) error

// Server returns /metrics, /healthz and /readyz. Safe for concurrent use.
type Server struct {
	telemetry *obs.Telemetry
	socket    string
	addr      string

	mu      sync.Mutex
	checks  map[string]Check
	servers []*http.Server
	exposed bool
}

// New returns a server that will listen on the unix socket of name in dataDir, and over mutual TLS
// on addr if it is not empty.
func New(telemetry *obs.Telemetry, dataDir, name, addr string) *Server {
	return &Server{telemetry: telemetry, socket: SocketPath(dataDir, name), addr: addr, checks: map[string]Check{}}
}

// SocketPath returns where the process called name listens for local probes.
func SocketPath(dataDir, name string) string { return filepath.Join(dataDir, name+".sock") }

// Start opens the unix socket.
func (s *Server) Start(context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.socket), 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	// A socket left by a killed process refuses connections and cannot be bound again.
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	path, release, err := shorten(s.socket)
	if err != nil {
		return err
	}
	defer release()
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", s.socket, err)
	}
	s.serve(listener)
	return nil
}

// Add includes a check in readiness under a name.
func (s *Server) Add(name string, check Check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = check
}

// Expose opens telemetry.addr over mutual TLS with the identity of the first service that has one;
// later calls do nothing.
func (s *Server) Expose(source identity.Source) error {
	s.mu.Lock()
	done := s.exposed || s.addr == ""
	s.exposed = true
	s.mu.Unlock()
	if done {
		return nil
	}
	refused, err := obs.Register(s.telemetry.Metrics, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "konsul_telemetry_connections_refused_total",
		Help: "Connections to telemetry.addr that were refused, or had to make room, by reason.",
	}, []string{"reason"}))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen on telemetry.addr %q: %w", s.addr, err)
	}
	gate := admission.New(admission.Limits{
		Connections: maxConnections, PerSource: maxConnections / 2, HalfOpen: maxConnections / 4, HalfOpenPerSource: maxConnections / 8,
	}, func(r admission.Reason) { refused.WithLabelValues(string(r)).Inc() })
	s.serve(tlsListener(gate.Listener(listener), source))
	return nil
}

// Stop closes every listener.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	servers := s.servers
	s.servers = nil
	s.mu.Unlock()
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

func (s *Server) serve(listener net.Listener) {
	server := &http.Server{
		Handler: s.Handler(), ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes, ConnState: admission.Spoke,
	}
	s.mu.Lock()
	s.servers = append(s.servers, server)
	s.mu.Unlock()
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.telemetry.Log.Error("telemetry listener ended", obs.KeyAddress, listener.Addr().String(), obs.KeyError, err)
		}
	}()
}

// Handler returns the three paths; the gateway's edge mounts it behind its token check.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.telemetry.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	return mux
}

// Ready returns what is not ready, by check name; empty when all is.
func (s *Server) Ready(ctx context.Context) map[string]string {
	s.mu.Lock()
	checks := make(map[string]Check, len(s.checks))
	for name, check := range s.checks {
		checks[name] = check
	}
	s.mu.Unlock()
	failing := map[string]string{}
	for name, check := range checks {
		if err := check(ctx); err != nil {
			failing[name] = err.Error()
		}
	}
	return failing
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	failing := s.Ready(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if len(failing) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// The client has gone if this fails; nothing is left to tell it.
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": len(failing) == 0, "failing": failing})
}

// Probe asks the process called name in dataDir whether it is ready, over its unix socket.
func Probe(ctx context.Context, dataDir, name string) error {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			path, release, err := shorten(SocketPath(dataDir, name))
			if err != nil {
				return nil, err
			}
			defer release()
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://unix/readyz", http.NoBody)
	if err != nil {
		return fmt.Errorf("make probe: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("probe %s: %w", name, err)
	}
	defer func() { _ = response.Body.Close() }()
	var body struct{ Failing map[string]string }
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		return fmt.Errorf("read answer of %s: %w", name, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready: %v", name, body.Failing)
	}
	return nil
}

// shorten returns a path to the same socket that fits a unix address, by way of its folder's
// descriptor.
func shorten(path string) (short string, release func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, fmt.Errorf("open folder of %q: %w", path, err)
	}
	short = filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(path))
	return short, func() { _ = dir.Close() }, nil
}
