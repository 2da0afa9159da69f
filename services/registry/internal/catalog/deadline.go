package catalog

import (
	"strings"
	"time"
)

// Deadlines keeps time for the view. Its keys mean something to Writer.Expire alone.
type Deadlines interface {
	// Reset replaces all deadlines.
	Reset(deadlines map[string]time.Duration)
	// Set adds a deadline, or begins it anew.
	Set(key string, ttl time.Duration)
	Remove(key string)
}

// Times are how long nodes of no use are kept.
type Times struct {
	// Dead nodes, since they sent no heartbeats.
	Dead time.Duration
	// Empty nodes that nobody registered for themselves, since their last instance went; 0: for
	// ever.
	Empty time.Duration
}

type noDeadlines struct{}

func (noDeadlines) Reset(map[string]time.Duration) {}
func (noDeadlines) Set(string, time.Duration)      {}
func (noDeadlines) Remove(string)                  {}

// What deadlines are about.
const (
	// DeadlineReport is that of a TTL check.
	DeadlineReport = "report"
	// DeadlineHeartbeat is that of a node.
	DeadlineHeartbeat = "heartbeat"
	// DeadlineReap is that of a dead node.
	DeadlineReap = "reap"
	// DeadlineEmpty is that of a node that was made for instances and has none.
	DeadlineEmpty = "empty"

	// Keys of deadlines begin with what they are about.
	dueReport    = DeadlineReport + ":"
	dueHeartbeat = DeadlineHeartbeat + ":"
	dueReap      = DeadlineReap + ":"
	dueEmpty     = DeadlineEmpty + ":"
)

// watchCheck keeps the deadline of a TTL check; nil when it is gone. One that is critical waits for
// nothing.
func (v *View) watchCheck(key string, c *check) {
	if c != nil && c.ttl != nil && c.status != critical {
		v.deadlines.Set(dueReport+key, c.ttl.AsDuration())
	} else {
		v.deadlines.Remove(dueReport + key)
	}
}

// watchNode keeps the deadlines of a node that must send heartbeats.
func (v *View) watchNode(n *node) {
	heartbeat, reap := v.dueOf(n)
	v.watch(dueHeartbeat+n.name, heartbeat)
	v.watch(dueReap+n.name, reap)
	v.watchEmpty(n)
}

// watchEmpty keeps the deadline of a node that has no use any more.
func (v *View) watchEmpty(n *node) {
	idles := v.idle(n)
	if idles == n.idles {
		return
	}
	n.idles = idles
	if idles {
		v.deadlines.Set(dueEmpty+n.name, v.times.Empty)
	} else {
		v.deadlines.Remove(dueEmpty + n.name)
	}
}

func (v *View) idle(n *node) bool {
	return v.times.Empty > 0 && n.exists && n.implicit && len(n.instances)+len(n.checks) == 0
}

func (v *View) watch(key string, ttl time.Duration) {
	if ttl == 0 {
		v.deadlines.Remove(key)
	} else {
		v.deadlines.Set(key, ttl)
	}
}

// dueOf returns a node's deadlines; 0: none of that kind.
func (v *View) dueOf(n *node) (heartbeat, reap time.Duration) {
	liveness := n.check(CheckLiveness)
	switch {
	case n.ttl == nil || liveness == nil:
		return 0, 0
	case liveness.status != critical:
		return n.ttl.AsDuration(), 0
	}
	// The node has been dead since its check says so, whoever led then; but a new leader hears it
	// out.
	left := v.times.Dead - v.now().Sub(liveness.value().GetModifiedAt().AsTime())
	return 0, max(left, n.ttl.AsDuration())
}

// Grace begins all deadlines anew: a leader that was just elected does not know who reported to the
// one before.
func (v *View) Grace() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.deadlines.Reset(v.dueLocked())
}

func (v *View) dueLocked() map[string]time.Duration {
	due := map[string]time.Duration{}
	add := func(o owner, checks []*check) {
		for _, c := range checks {
			if o.check = c.id; c.ttl != nil && c.status != critical {
				due[dueReport+o.key()] = c.ttl.AsDuration()
			}
		}
	}
	for _, n := range v.nodes {
		add(owner{node: n.name}, n.checks)
		heartbeat, reap := v.dueOf(n)
		if heartbeat > 0 {
			due[dueHeartbeat+n.name] = heartbeat
		}
		if reap > 0 {
			due[dueReap+n.name] = reap
		}
		if n.idles = v.idle(n); n.idles {
			due[dueEmpty+n.name] = v.times.Empty
		}
	}
	for _, i := range v.instances {
		add(owner{service: i.id}, i.checks)
	}
	return due
}

func (n *node) check(id string) *check { return findCheck(n.checks, id) }

func findCheck(checks []*check, id string) *check {
	for _, c := range checks {
		if c.id == id {
			return c
		}
	}
	return nil
}

// Deadline takes a deadline's key apart: what it is about, and the check's key or the node's name.
func Deadline(key string) (kind, name string) {
	kind, name, _ = strings.Cut(key, ":")
	return kind, name
}
