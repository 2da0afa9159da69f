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
	// interval is how long refusals of a kind are counted before the line about those that were
	// left out.
	interval = time.Minute
	// changePatience is how long a change waits for its place when the disk does not keep up; then
	// it goes to the service's log instead.
	changePatience = 5 * time.Second

	keyAccessor = "accessor"
	keyResource = "resource"
	keyDecision = "decision"
	keyOutcome  = "outcome"
	keyOmitted  = "omitted"

	decisionAllowed = "allowed"
	decisionDenied  = "denied"
)

// Entry is one line.
type Entry struct {
	// Accessor is the token's accessor id; empty when a service acted as itself or the token is
	// unknown.
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
	// Path is the file of changes, DeniedPath that of refusals; "-" is the service's log.
	Path, DeniedPath string
	// MaxBytes is the size at which a file is put aside, Keep how many are kept of each that were.
	MaxBytes int64
	Keep     int
	// DeniedPerMinute is how many refusals of the same caller, method and outcome are written in a
	// minute; 0: all.
	DeniedPerMinute int

	Datacenter string
	Clock      clock.Clock
	Metrics    *Metrics
	Log        *slog.Logger
}

// Log is an audit log. Run writes it.
type Log struct {
	p      Params
	sample sample
	// Refusals have a queue and a file of their own: however many there are, changes find their
	// place and stay.
	changes, denials target
	mu               sync.RWMutex
	done             bool
}

// target is where lines of a kind go.
type target struct {
	queue chan line
	out   *slog.Logger
	// file is nil when out is the service's log.
	file *rotating
}

type line struct {
	at       time.Time
	decision string
	entry    Entry
	traceID  string
	// omitted is how many refusals like this one the line stands for, if it is about more than one.
	omitted int
}

// Open opens the files; lines wait in queues until Run.
func Open(p Params) (*Log, error) {
	l := &Log{p: p, sample: sample{first: p.DeniedPerMinute, seen: map[kind]int{}}}
	var err error
	if l.changes, err = p.open(p.Path); err != nil {
		return nil, err
	}
	if l.denials, err = p.open(p.DeniedPath); err != nil {
		return nil, errors.Join(err, l.changes.close())
	}
	return l, nil
}

func (p Params) open(path string) (target, error) {
	t := target{queue: make(chan line, queueLength), out: p.Log}
	if path == "-" {
		return t, nil
	}
	var err error
	if t.file, err = openRotating(path, p.MaxBytes, p.Keep); err != nil {
		return t, fmt.Errorf("open the audit log: %w", err)
	}
	t.out = slog.New(slog.NewJSONHandler(failing{t.file, p}, &slog.HandlerOptions{Level: slog.LevelInfo})).With(obs.KeyDatacenter, p.Datacenter)
	return t, nil
}

func (t target) close() error {
	if t.file == nil {
		return nil
	}
	return errors.Join(t.file.Sync(), t.file.Close())
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

// Denied notes a refusal, unless there is no place for it, or there were many like it of late:
// those are counted.
func (l *Log) Denied(ctx context.Context, e Entry) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.done {
		return
	}
	if !l.sample.admit(e) {
		l.p.Metrics.dropped.WithLabelValues("repeated").Inc()
		return
	}
	select {
	case l.denials.queue <- l.line(ctx, decisionDenied, e):
	default:
		l.p.Metrics.dropped.WithLabelValues("denied").Inc()
	}
}

// Changed notes what an administrative call did. It waits for its place, but not for the caller.
func (l *Log) Changed(ctx context.Context, e Entry) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	entry := l.line(ctx, decisionAllowed, e)
	if l.done {
		l.write(ctx, l.p.Log, entry)
		return
	}
	select {
	case l.changes.queue <- entry:
		return
	default:
	}
	select {
	case l.changes.queue <- entry:
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
	if n.omitted > 0 {
		record.AddAttrs(slog.Int(keyOmitted, n.omitted))
	}
	if n.traceID != "" {
		record.AddAttrs(slog.String(obs.KeyTraceID, n.traceID))
	}
	_ = to.Handler().Handle(ctx, record) // What cannot be written has been reported by the writer.
	l.p.Metrics.lines.WithLabelValues(n.decision).Inc()
}

// Run writes lines until ctx ends.
func (l *Log) Run(ctx context.Context) error {
	tick := l.p.Clock.After(interval)
	for {
		select {
		case n := <-l.changes.queue:
			l.write(ctx, l.changes.out, n)
		case n := <-l.denials.queue:
			l.write(ctx, l.denials.out, n)
		case <-tick:
			l.summarize(ctx)
			tick = l.p.Clock.After(interval)
		case <-ctx.Done():
			return nil
		}
	}
}

// summarize writes how many refusals were left out, a line for each kind.
func (l *Log) summarize(ctx context.Context) {
	for k, omitted := range l.sample.next() {
		l.write(ctx, l.denials.out, line{
			at: l.p.Clock.Now(), decision: decisionDenied, omitted: omitted,
			entry: Entry{Accessor: k.accessor, Peer: k.peer, Method: k.method, Outcome: k.outcome},
		})
	}
}

// Close writes what is queued and closes the files. Run has ended. Closing it again does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	again := l.done
	l.done = true
	l.mu.Unlock()
	if again {
		return nil
	}
	for _, t := range []target{l.changes, l.denials} {
		for len(t.queue) > 0 { // Nobody sends or receives any more.
			l.write(context.Background(), t.out, <-t.queue)
		}
	}
	l.summarize(context.Background())
	return errors.Join(l.changes.close(), l.denials.close())
}
