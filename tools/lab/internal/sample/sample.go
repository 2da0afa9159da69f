// Package sample is a small real HTTP service for the lab: it answers who it is, and it can be told
// to fail its health check.
package sample

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// drainTimeout is how long open requests may take at the end.
const drainTimeout = 2 * time.Second

// Config says what to pretend to be.
type Config struct {
	Name       string
	Datacenter string
	// Instance tells two processes of one service apart.
	Instance string
	// Listen is host:port.
	Listen string
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	for _, field := range []struct{ flag, value string }{
		{"--name", c.Name}, {"--dc", c.Datacenter}, {"--listen", c.Listen},
	} {
		if field.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing", field.flag))
		}
	}
	return errors.Join(errs...)
}

// answer is what `/` says.
type answer struct {
	Service    string `json:"service"`
	Datacenter string `json:"datacenter"`
	Instance   string `json:"instance"`
}

// Handler returns `/` with the instance's identity, `/health` with its health, and changes that
// health at `POST /health/fail` and `POST /health/pass`. Safe for concurrent use.
func Handler(cfg Config) http.Handler {
	var failing atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// The client has gone if this fails; nothing is left to tell it.
		_ = json.NewEncoder(w).Encode(answer{Service: cfg.Name, Datacenter: cfg.Datacenter, Instance: cfg.Instance})
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if failing.Load() {
			http.Error(w, "told to fail; POST /health/pass ends it", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	set := func(fail bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			failing.Store(fail)
			w.WriteHeader(http.StatusNoContent)
		}
	}
	mux.HandleFunc("POST /health/fail", set(true))
	mux.HandleFunc("POST /health/pass", set(false))
	return mux
}

// Run serves until ctx ends, then lets open requests finish.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Instance == "" {
		cfg.Instance = fmt.Sprintf("%s-%s-%d", cfg.Name, cfg.Datacenter, os.Getpid())
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on --listen %q: %w", cfg.Listen, err)
	}
	return serve(ctx, listener, Handler(cfg))
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}
