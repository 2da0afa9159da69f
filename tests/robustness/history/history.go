package history

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sync"
	"time"
)

// Kind is what an operation does.
type Kind string

// The kinds.
const (
	Get    Kind = "get"
	Set    Kind = "set"
	Delete Kind = "delete"
)

// Mode is the read mode of a Get.
type Mode string

// The read modes.
const (
	Default      Mode = "default"
	Stale        Mode = "stale"
	Linearizable Mode = "linearizable"
)

// Modes lists the read modes.
func Modes() []Mode { return []Mode{Default, Stale, Linearizable} }

// Fate is how an operation ended.
type Fate string

// The fates.
const (
	// OK: it was done.
	OK Fate = "ok"
	// Conflict: a compare-and-set lost; nothing changed.
	Conflict Fate = "conflict"
	// Refused: nothing was done, and nothing will be.
	Refused Fate = "refused"
	// Unknown: it may have been done, may be done yet, or never.
	Unknown Fate = "unknown"
)

// Never is the return of an operation that nobody knows the end of.
const Never = time.Duration(math.MaxInt64)

// Operation is one call of one client on one key, its retries included.
type Operation struct {
	Client int    `json:"client"`
	Kind   Kind   `json:"kind"`
	Key    string `json:"key"`
	// Value is what was written or read. Every write has a value of its own.
	Value string `json:"value,omitempty"`
	// CAS is the index a write was made for.
	CAS *uint64 `json:"cas,omitempty"`
	// Txn is the request id of a transaction that writes or reads Key and its twin.
	Txn string `json:"txn,omitempty"`
	// Twin is what was read beside Key: the other key of a transaction, or the instances of a node.
	Twin *Twin `json:"twin,omitempty"`

	Mode Mode `json:"mode,omitempty"`
	// Server is who was asked, and Life which of its processes.
	Server string `json:"server,omitempty"`
	Life   int    `json:"life,omitempty"`

	Fate Fate `json:"fate"`
	// Found says that a read key was there.
	Found bool `json:"found,omitempty"`
	// Modify is the modify index of what was written or read, 0 where a write was not told; of a
	// deletion, its index if it deleted something.
	Modify uint64 `json:"modify,omitempty"`
	// Index is what a read's answer reflects.
	Index uint64 `json:"index,omitempty"`
	// Why is the error of what did not end well.
	Why string `json:"why,omitempty"`

	Call   time.Duration `json:"call"`
	Return time.Duration `json:"return"`
}

// Twin is the state of what is always written together with a key.
type Twin struct {
	Found  bool   `json:"found,omitempty"`
	Value  string `json:"value,omitempty"`
	Modify uint64 `json:"modify,omitempty"`
}

// String says what happened, for people.
func (o Operation) String() string {
	what := string(o.Kind)
	if o.Kind == Get {
		what = string(o.Mode) + " get"
	}
	if o.Value != "" {
		what += " " + o.Value
	}
	if o.CAS != nil {
		what += fmt.Sprintf(" if at %d", *o.CAS)
	}
	return fmt.Sprintf("[%v, %v] client %d, %s/%d: %s %s: %s, found %v, modify %d, index %d",
		o.Call, o.Return, o.Client, o.Server, o.Life, o.Key, what, o.Fate, o.Found, o.Modify, o.Index)
}

// Event is one changed row that a watcher was told of.
type Event struct {
	Key     string `json:"key"`
	Value   string `json:"value,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
	Modify  uint64 `json:"modify"`
}

// Message is one message of a watch.
type Message struct {
	Events []Event `json:"events,omitempty"`
	// Index is up to where everything was sent, of a message that says so.
	Index  uint64        `json:"index"`
	Synced bool          `json:"synced"`
	At     time.Duration `json:"at"`
}

// Watch is one stream, from its beginning to its end.
type Watch struct {
	Server string `json:"server"`
	// Prefix is what the keys begin with that it follows.
	Prefix string `json:"prefix,omitempty"`
	// From is the index it was asked to go on from; 0: everything.
	From     uint64    `json:"from"`
	Messages []Message `json:"messages"`
}

// Hold is a lock that was granted to a client.
type Hold struct {
	Client int    `json:"client"`
	Name   string `json:"name"`
	Token  uint64 `json:"token"`
	// Call and Granted bound when it was granted; Until is how long the client could be sure of it.
	Call, Granted, Until time.Duration
	// Fenced are the indexes of the transactions that went ahead on the condition that the lock is
	// held with the token.
	Fenced []uint64 `json:"fenced,omitempty"`
}

// History is everything that was recorded.
type History struct {
	Seed       uint64      `json:"seed"`
	Operations []Operation `json:"operations"`
	Watches    []Watch     `json:"watches"`
	Holds      []Hold      `json:"holds"`
	Faults     []string    `json:"faults"`
}

// Acknowledged counts the operations that were done.
func (h *History) Acknowledged() int {
	n := 0
	for _, o := range h.Operations {
		if o.Fate == OK || o.Fate == Conflict {
			n++
		}
	}
	return n
}

// Save writes the history as JSON.
func (h *History) Save(path string) error {
	text, err := json.MarshalIndent(h, "", " ")
	if err != nil {
		return fmt.Errorf("encode history: %w", err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("save history: %w", err)
	}
	return nil
}

// Recorder collects a history while it happens.
type Recorder struct {
	start time.Time

	mu sync.Mutex
	h  History
}

// NewRecorder starts the history's clock.
func NewRecorder(seed uint64) *Recorder { return &Recorder{start: time.Now(), h: History{Seed: seed}} }

// Now is the history's time.
func (r *Recorder) Now() time.Duration { return time.Since(r.start) }

// Done records an operation that ends now.
func (r *Recorder) Done(o Operation) {
	o.Return = r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Operations = append(r.h.Operations, o)
}

// Watched records a watch.
func (r *Recorder) Watched(w Watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Watches = append(r.h.Watches, w)
}

// Held records a lock that was held.
func (r *Recorder) Held(h Hold) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Holds = append(r.h.Holds, h)
}

// Fault notes that something was broken or mended.
func (r *Recorder) Fault(format string, args ...any) {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Faults = append(r.h.Faults, fmt.Sprintf("%v: %s", now.Round(time.Millisecond), fmt.Sprintf(format, args...)))
}

// History returns what was recorded so far.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.h
	return &h
}
