package catalog

import (
	"strings"
	"time"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Deadlines keeps time for the view. Its keys mean something to Writer.Expire alone.
type Deadlines interface {
	// Reset replaces all deadlines.
	Reset(deadlines map[string]time.Duration)
	// Set adds a deadline, or begins it anew.
	Set(key string, ttl time.Duration)
	Remove(key string)
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

	// Keys of deadlines begin with what they are about.
	dueReport    = DeadlineReport + ":"
	dueHeartbeat = DeadlineHeartbeat + ":"
	dueReap      = DeadlineReap + ":"
)

// watchCheck keeps the deadline of a TTL check. One that is critical waits for nothing.
func (v *View) watchCheck(key string, c *registryv1.Check) {
	if ttl := c.GetTtl().AsDuration(); c.GetTtl() != nil && c.GetStatus() != critical {
		v.deadlines.Set(dueReport+key, ttl)
	} else {
		v.deadlines.Remove(dueReport + key)
	}
}

// watchNode keeps the deadlines of a node that must send heartbeats.
func (v *View) watchNode(n *node) {
	for key, ttl := range v.dueOf(n) {
		if ttl == 0 {
			v.deadlines.Remove(key)
		} else {
			v.deadlines.Set(key, ttl)
		}
	}
}

// dueOf answers a node's deadlines; 0: none of that kind.
func (v *View) dueOf(n *node) map[string]time.Duration {
	heartbeat, reap := dueHeartbeat+n.name, dueReap+n.name
	ttl := n.value.GetLivenessTtl()
	liveness := findCheck(n.checks, CheckLiveness)
	switch {
	case ttl == nil || liveness == nil:
		return map[string]time.Duration{heartbeat: 0, reap: 0}
	case liveness.GetStatus() != critical:
		return map[string]time.Duration{heartbeat: ttl.AsDuration(), reap: 0}
	}
	// The node has been dead since its check says so, whoever led then; but a new leader hears it out.
	left := v.reapAfter - v.now().Sub(liveness.GetModifiedAt().AsTime())
	return map[string]time.Duration{heartbeat: 0, reap: max(left, ttl.AsDuration())}
}

// Grace begins all deadlines anew: a leader that was just elected does not know who reported to the one before.
func (v *View) Grace() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.deadlines.Reset(v.dueLocked())
}

func (v *View) dueLocked() map[string]time.Duration {
	due := map[string]time.Duration{}
	add := func(o owner, checks []*registryv1.Check) {
		for _, c := range checks {
			if o.check = c.GetId(); c.GetTtl() != nil && c.GetStatus() != critical {
				due[dueReport+o.key()] = c.GetTtl().AsDuration()
			}
		}
	}
	for _, n := range v.nodes {
		add(owner{node: n.name}, n.checks)
		for key, ttl := range v.dueOf(n) {
			if ttl > 0 {
				due[key] = ttl
			}
		}
	}
	for _, i := range v.instances {
		add(owner{service: i.id}, i.answer.GetChecks())
	}
	return due
}

func findCheck(checks []*registryv1.Check, id string) *registryv1.Check {
	for _, c := range checks {
		if c.GetId() == id {
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
