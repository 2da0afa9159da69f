// Package control lets other invocations of konsul-lab speak to the running one, over a unix socket
// in a private folder whose path is written into the lab's folder. Unix socket paths are short, a
// lab's folder may be deep, hence the detour.
//
// One connection carries one request and one response, both a line of JSON. Safe for concurrent
// use.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Verbs of a request.
const (
	VerbStatus = "status"
	VerbStart  = "start"
	VerbStop   = "stop"
	VerbKill   = "kill"
)

// pathFile is where a lab's folder says which socket to use.
const pathFile = "control"

// readTimeout is how long a connection may take to say what it wants.
const readTimeout = 5 * time.Second

// Request asks the lab to do something.
type Request struct {
	Verb       string `json:"verb"`
	Datacenter string `json:"datacenter,omitempty"`
}

// Response is what came of it.
type Response struct {
	// Error is empty when the request succeeded.
	Error       string       `json:"error,omitempty"`
	Datacenters []Datacenter `json:"datacenters,omitempty"`
}

// Datacenter is the state of one datacenter's processes.
type Datacenter struct {
	Name      string    `json:"name"`
	Primary   bool      `json:"primary"`
	URL       string    `json:"url"`
	Processes []Process `json:"processes"`
}

// Process is one process of a datacenter.
type Process struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Running bool   `json:"running"`
	Log     string `json:"log"`
}

// Handler does what a request asks.
type Handler func(ctx context.Context, request Request) ([]Datacenter, error)

// Serve returns requests for the lab in dir until ctx ends. It returns once it listens; the
// returned function waits for the end and removes what Serve made.
func Serve(ctx context.Context, dir string, handle Handler) (wait func() error, err error) {
	folder, err := os.MkdirTemp("", "konsul-lab-")
	if err != nil {
		return nil, fmt.Errorf("make folder of the control socket: %w", err)
	}
	path := filepath.Join(folder, "s")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on control socket: %w", err), os.RemoveAll(folder))
	}
	if err := os.WriteFile(filepath.Join(dir, pathFile), []byte(path+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("say where the control socket is: %w", err), listener.Close(), os.RemoveAll(folder))
	}
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		accept(ctx, listener, handle)
	}()
	return func() error {
		<-done
		stop()
		return errors.Join(os.RemoveAll(folder), os.Remove(filepath.Join(dir, pathFile)))
	}, nil
}

func accept(ctx context.Context, listener net.Listener, handle Handler) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go serve(ctx, conn, handle)
	}
}

func serve(ctx context.Context, conn net.Conn, handle Handler) {
	defer func() { _ = conn.Close() }()
	// A connection that cannot take a deadline is one that has gone.
	_ = conn.SetReadDeadline(time.Now().Add(readTimeout))
	var request Request
	if err := json.NewDecoder(conn).Decode(&request); err != nil {
		return
	}
	var response Response
	var err error
	if response.Datacenters, err = handle(ctx, request); err != nil {
		response.Error = err.Error()
	}
	// The asker has gone if this fails; the work is done all the same.
	_ = json.NewEncoder(conn).Encode(response)
}

// Call sends a request to the lab that runs in dir and waits for its answer, as long as ctx allows.
func Call(ctx context.Context, dir string, request Request) ([]Datacenter, error) {
	path, err := os.ReadFile(filepath.Join(dir, pathFile))
	if err != nil {
		return nil, fmt.Errorf("no lab runs in %q: start one with `konsul-lab up`, or name its folder with --dir: %w", dir, err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimSpace(string(path)))
	if err != nil {
		return nil, fmt.Errorf("the lab in %q does not answer: start it again with `konsul-lab up`: %w", dir, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(request); err != nil {
		return nil, fmt.Errorf("ask the lab: %w", err)
	}
	var response Response
	if err := json.NewDecoder(conn).Decode(&response); err != nil {
		return nil, fmt.Errorf("read the lab's answer: %w", errors.Join(context.Cause(ctx), err))
	}
	if response.Error != "" {
		return response.Datacenters, errors.New(response.Error)
	}
	return response.Datacenters, nil
}
