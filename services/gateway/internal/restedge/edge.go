// Package restedge is the people's door of a datacenter: REST by grpc-gateway and gRPC passed on as
// it comes, on one TLS port, with a bearer token on every call.
//
// It decides whether a token is known and which services and methods are public; what the token may
// do is decided by the service that is called. An Edge serves any number of calls at once.
package restedge

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/grpc"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/obs"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// pingAfter and pingTimeout find clients that neither answer nor close.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// Params is what an edge is made of.
type Params struct {
	Conns     Conns
	Tokens    *Tokens
	TLS       *tls.Config
	Telemetry *obs.Telemetry
	Bounds    Bounds
	Limits    admission.Limits
	// Ready returns what is not ready; empty: all is.
	Ready func(context.Context) map[string]string
	// Writes returns why nothing can be written, as a stable reason; empty: it can.
	Writes func() string
	// Metrics serves /metrics to holders of a token; nil: there are none.
	Metrics http.Handler
}

// Bounds is what clients may take of an edge beside its connections.
type Bounds struct {
	// MaxConcurrentStreams bounds the calls at once on one connection.
	MaxConcurrentStreams int
	// MaxHeaderBytes bounds the headers of a call.
	MaxHeaderBytes int
	// MaxRequestBytes bounds a request body and a gRPC message.
	MaxRequestBytes int64
	// MaxInflightBytes bounds what the requests weigh that are held at once; the calls of one token
	// have a quarter.
	MaxInflightBytes int64
	// RequestReadTimeout is how long a body or a message may take to arrive.
	RequestReadTimeout time.Duration
}

// Edge is the people's port. Serve and Drain are called once each.
type Edge struct {
	p      Params
	rest   http.Handler
	proxy  *grpc.Server
	server *http.Server
	gate   *admission.Gate
	doc    []byte
	// inflight is shared by both faces.
	inflight *inflight
}

// New returns an edge that serves nothing yet.
func New(p Params) (*Edge, error) {
	metrics, err := newMetrics(p.Telemetry.Metrics)
	if err != nil {
		return nil, err
	}
	conns, err := p.Conns.guarded(registryv1.NewTokenServiceClient(p.Conns.Registry))
	if err != nil {
		return nil, err
	}
	public, err := conns.public()
	if err != nil {
		return nil, err
	}
	mux, err := newMux(context.Background(), conns)
	if err != nil {
		return nil, err
	}
	doc, err := openAPI()
	if err != nil {
		return nil, err
	}
	e := &Edge{
		p: p, rest: mux, doc: doc, gate: admission.New(p.Limits, metrics.refused),
		inflight: newInflight(p.Bounds.MaxInflightBytes, p.Bounds.MaxRequestBytes, metrics.met),
	}
	e.proxy = newProxy(public, p.Tokens, p.Bounds, e.inflight)
	e.server = &http.Server{
		// One span for each call, whatever it speaks; the calls it makes become its children.
		Handler: metrics.count(otelhttp.NewHandler(e, "edge",
			otelhttp.WithTracerProvider(p.Telemetry.Tracer), otelhttp.WithPropagators(p.Telemetry.Propagator),
			otelhttp.WithSpanNameFormatter(spanName), otelhttp.WithFilter(isCall))),
		TLSConfig:         p.TLS,
		ConnState:         admission.Spoke,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(p.Telemetry.Log.Handler(), slog.LevelDebug),
		MaxHeaderBytes:    p.Bounds.MaxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: p.Bounds.MaxConcurrentStreams, SendPingTimeout: pingAfter, PingTimeout: pingTimeout,
		},
	}
	return e, nil
}

// Serve returns calls until listener is closed or Drain is called.
func (e *Edge) Serve(listener net.Listener) error {
	err := e.server.ServeTLS(e.gate.Listener(listener), "", "")
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve the edge: %w", err)
}

// Drain lets calls in flight finish until ctx ends, then cuts the rest.
func (e *Edge) Drain(ctx context.Context) {
	if err := e.server.Shutdown(ctx); err != nil {
		e.p.Telemetry.Log.Info("calls cut at the end of the drain", obs.KeyError, err)
		_ = e.server.Close() // what it could not close is gone
	}
	e.proxy.Stop()
}

// ServeHTTP implements http.Handler. Paths are matched here, because http.ServeMux redirects a key
// with empty or dotted segments to another key.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case isGRPC(r):
		r = inTurn(w, r, e.p.Bounds.RequestReadTimeout)
		defer messagesOf(r.Context()).end()
		e.proxy.ServeHTTP(w, r)
		return
	case strings.HasPrefix(r.URL.Path, apiPrefix):
		e.serveREST(w, r)
		return
	}
	if !allowRead(w, r) {
		return
	}
	switch r.URL.Path {
	case "/healthz":
		writeText(w, http.StatusOK, "ok\n")
	case "/readyz":
		e.serveReadiness(w, r)
	case "/metrics":
		e.serveMetrics(w, r)
	case "/openapi.json":
		w.Header().Set("Content-Type", mimeJSON)
		_, _ = w.Write(e.doc) // the client has gone if this fails
	default:
		refuseWith(w, http.StatusNotFound, noRoute(r))
	}
}

func allowRead(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	refuseWith(w, http.StatusNotFound, noRoute(r))
	return false
}

// serveReadiness says which part is not ready by a stable reason, and no more: nobody has shown a
// token. Reads may go on where nothing can be written; ?reads asks for those alone.
func (e *Edge) serveReadiness(w http.ResponseWriter, r *http.Request) {
	parts := map[string]string{"process": "ok", "registry": "ok"}
	ready := true
	if len(e.p.Ready(r.Context())) > 0 {
		parts["process"], ready = "NOT_READY", false
	}
	if why := e.p.Writes(); why != "" {
		parts["registry"] = why
		ready = ready && r.URL.Query().Has("reads")
	}
	w.Header().Set("Content-Type", mimeJSON)
	w.Header().Set("Cache-Control", "no-store")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// The client has gone if this fails.
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": ready, "parts": parts})
}

func (e *Edge) serveMetrics(w http.ResponseWriter, r *http.Request) {
	caller, err := e.authenticate(r)
	if err == nil {
		err = authorize(withCaller(r.Context(), caller), registryv1.NewTokenServiceClient(e.p.Conns.Registry), "/metrics",
			[]*registryv1.ACLNeed{{Resource: "operator", Access: "read", Name: "metrics"}}, false)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	if e.p.Metrics == nil {
		refuseWith(w, http.StatusNotFound, noRoute(r))
		return
	}
	e.p.Metrics.ServeHTTP(w, r)
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the client has gone if this fails
}

func isGRPC(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return r.ProtoMajor == 2 && (kind == mimeGRPC || strings.HasPrefix(kind, mimeGRPC+"+") || strings.HasPrefix(kind, mimeGRPC+";"))
}

func isCall(r *http.Request) bool { return isGRPC(r) || strings.HasPrefix(r.URL.Path, apiPrefix) }

// spanName keeps keys and names out of span names; the path is an attribute.
func spanName(_ string, r *http.Request) string {
	if isGRPC(r) {
		return strings.TrimPrefix(r.URL.Path, "/")
	}
	return r.Method + " " + area(r.URL.Path)
}

// area returns the first segment below the API's prefix, such as "/api/v1/kv".
func area(path string) string {
	rest, ok := strings.CutPrefix(path, apiPrefix)
	if !ok {
		return "/"
	}
	first, _, _ := strings.Cut(rest, "/")
	return apiPrefix + first
}
