package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/obs"
)

const (
	queueLength = 4096
	// changePatience is how long a change waits for its place when the disk does not keep up; then it goes
	// to the service's log instead.
	changePatience = 5 * time.Second

	keyAccessor = "accessor"
	keyResource = "resource"
	keyDecision = "decision"
	keyOutcome  = "outcome"
)

// Entry is one line.
type Entry struct {
	// Accessor is the token's accessor id; empty when a service acted as itself or the token is unknown.
	Accessor string
	// Peer is the service that made the call.
	Peer string
	// Method is the full name of the gRPC method.
	Method string
	// Resource is what it was about: the permissions it takes.
	Resource string
	// Outcome is "OK" or the code and reason of the refusal.
	Outcome string
	// RequestID is the request's, if it has one.
	RequestID string
}

// Params is what a Log is made of.
type Params struct {
	// Path is the file; "-" is the service's log.
	Path string
	// MaxBytes is the size at which the file is put aside, Keep how many are kept that were.
	MaxBytes int64
	Keep     int

	Datacenter string
	Clock      clock.Clock
	Metrics    *Metrics
	Log        *slog.Logger
}

// Log is an audit log. Run writes it.
type Log struct {
	p     Params
	out   *slog.Logger
	file  *rotating
	queue chan line
	mu    sync.RWMutex
	done  bool
}

type line struct {
	at       time.Time
	decision string
	entry    Entry
	traceID  string
}

// Open opens the file; lines wait in the queue until Run.
func Open(p Params) (*Log, error) {
	l := &Log{p: p, out: p.Log, queue: make(chan line, queueLength)}
	if p.Path == "-" {
		return l, nil
	}
	file, err := openRotating(p.Path, p.MaxBytes, p.Keep)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l.file = file
	l.out = slog.New(slog.NewJSONHandler(failing{file, p}, &slog.HandlerOptions{Level: slog.LevelInfo})).With(obs.KeyDatacenter, p.Datacenter)
	return l, nil
}

// failing counts and reports lines that could not be written: the call they are about is over.
type failing struct {
	io.Writer
	p Params
}

func (f failing) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	if err != nil {
		f.p.Metrics.dropped.WithLabelValues("failed").Inc()
		f.p.Log.Error("an audit line could not be written", obs.KeyError, err)
	}
	return n, err
}

// Denied notes a refusal, unless there is no place for it.
func (l *Log) Denied(ctx context.Context, e Entry) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.done {
		return
	}
	select {
	case l.queue <- l.line(ctx, "denied", e):
	default:
		l.p.Metrics.dropped.WithLabelValues("denied").Inc()
	}
}

// Changed notes what an administrative call did. It waits for its place, but not for the caller.
func (l *Log) Changed(ctx context.Context, e Entry) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	entry := l.line(ctx, "allowed", e)
	if l.done {
		l.write(ctx, l.p.Log, entry)
		return
	}
	select {
	case l.queue <- entry:
		return
	default:
	}
	select {
	case l.queue <- entry:
	case <-l.p.Clock.After(changePatience):
		l.p.Metrics.dropped.WithLabelValues("changed").Inc()
		l.write(ctx, l.p.Log, entry)
	}
}

func (l *Log) line(ctx context.Context, decision string, e Entry) line {
	out := line{at: l.p.Clock.Now(), decision: decision, entry: e}
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		out.traceID = span.TraceID().String()
	}
	return out
}

func (l *Log) write(ctx context.Context, to *slog.Logger, n line) {
	record := slog.NewRecord(n.at, slog.LevelInfo, "audit", 0)
	record.AddAttrs(
		slog.String(keyDecision, n.decision), slog.String(keyAccessor, n.entry.Accessor), slog.String(obs.KeyPeer, n.entry.Peer),
		slog.String(obs.KeyMethod, n.entry.Method), slog.String(keyResource, n.entry.Resource), slog.String(keyOutcome, n.entry.Outcome),
		slog.String(obs.KeyRequestID, n.entry.RequestID),
	)
	if n.traceID != "" {
		record.AddAttrs(slog.String(obs.KeyTraceID, n.traceID))
	}
	_ = to.Handler().Handle(ctx, record) // What cannot be written has been reported by the writer.
	l.p.Metrics.lines.WithLabelValues(n.decision).Inc()
}

// Run writes lines until ctx ends.
func (l *Log) Run(ctx context.Context) error {
	for {
		select {
		case n := <-l.queue:
			l.write(ctx, l.out, n)
		case <-ctx.Done():
			return nil
		}
	}
}

// Close writes what is queued and closes the file. Run has ended. Closing it again does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	again := l.done
	l.done = true
	l.mu.Unlock()
	if again {
		return nil
	}
	for {
		select {
		case n := <-l.queue:
			l.write(context.Background(), l.out, n)
			continue
		default:
		}
		if l.file == nil {
			return nil
		}
		return errors.Join(l.file.Sync(), l.file.Close())
	}
}
