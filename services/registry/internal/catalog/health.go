package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// UpdateChecks returns the plan that records check outcomes. A status that did not change needs no
// operation, but it renews the deadline of a TTL check.
func (w *Writer) UpdateChecks(v *View, req *registryv1.UpdateChecksRequest, now time.Time) (*Plan, error) {
	if n := len(req.GetUpdates()); n == 0 || n > maxCheckRuns {
		return nil, fault.Invalid("updates", "are %d; 1 to %d are allowed", n, maxCheckRuns)
	}
	p := w.plan(v, req.GetRequestId(), now)
	last := map[string]int{}
	for i, u := range req.GetUpdates() {
		last[ownerIn(u).key()] = i
	}
	for i, u := range req.GetUpdates() {
		field := fmt.Sprintf("updates[%d]", i)
		o := ownerIn(u)
		if err := errors.Join(o.validate(field), status(field+".status", u.GetStatus(), false), output(field+".output", u.GetOutput())); err != nil {
			return nil, err
		}
		if last[o.key()] != i {
			continue
		}
		was := findCheck(v.checksOf(o), o.check).value()
		if was == nil {
			return nil, checkNotFound(o).WithField(field)
		}
		if was.GetTtl() != nil {
			p.Renews = append(p.Renews, dueReport+o.key())
		}
		if was.GetStatus() == u.GetStatus() {
			continue
		}
		fresh := proto.CloneOf(was)
		fresh.Status, fresh.Output = u.GetStatus(), u.GetOutput()
		p.putCheck(o, was.GetModifyIndex(), fresh)
	}
	return p.done()
}

func ownerIn(u *registryv1.CheckUpdate) owner {
	return owner{service: u.GetServiceId(), node: u.GetNode(), check: u.GetCheckId()}
}

func checkNotFound(o owner) *fault.Error {
	return fault.New(fault.NotFound, ReasonCheckNotFound, "%s has no check %q", o, o.check).WithRemedy("register it with its checks again")
}

// validate reports whether a caller may mean this check.
func (o owner) validate(field string) error {
	if strings.HasPrefix(o.check, reserved) {
		return fault.Invalid(field+".check_id", "%q is the registry's own", o.check).WithRemedy("switch maintenance on and off, send heartbeats")
	}
	if (o.service == "") == (o.node == "") {
		return fault.Invalid(field+".service_id", "and node: one of them says whose check it is").WithRemedy("name the instance, or the node for a node's own check")
	}
	return nil
}

// DeregisterCheck returns the plan that removes one check. It changes nothing when it is not there.
func (w *Writer) DeregisterCheck(v *View, req *registryv1.DeregisterCheckRequest) (*Plan, error) {
	o := owner{service: req.GetServiceId(), node: req.GetNode(), check: req.GetCheckId()}
	switch {
	case strings.HasPrefix(o.check, reserved):
		return nil, fault.Invalid("check_id", "%q is the registry's own", o.check).WithRemedy("switch maintenance on and off, register the node without liveness_ttl")
	case (o.service == "") == (o.node == ""):
		return nil, whose()
	}
	if err := w.rules.identifier("check_id", o.check); err != nil {
		return nil, err
	}
	p := w.plan(v, req.GetRequestId(), time.Time{})
	p.delete(registryv1.Table_TABLE_CHECK, o.key())
	return p.done()
}

// CheckNotFound is the answer about a check that is not there.
func CheckNotFound(req *registryv1.DeregisterCheckRequest) error {
	return checkNotFound(owner{service: req.GetServiceId(), node: req.GetNode(), check: req.GetCheckId()}).WithField("check_id")
}

func whose() error {
	return fault.Invalid("service_id", "and node: one of them must be there, the other not").WithRemedy("name the instance or the node")
}

// SetMaintenance returns the plan that switches the maintenance of an instance or a node. NotFound
// when it is not there.
func (w *Writer) SetMaintenance(v *View, req *registryv1.SetMaintenanceRequest, now time.Time) (*Plan, error) {
	o := owner{service: req.GetServiceId(), node: req.GetNode(), check: CheckMaintenance}
	if (o.service == "") == (o.node == "") {
		return nil, whose()
	}
	if err := output("reason", req.GetReason()); err != nil {
		return nil, err
	}
	p := w.plan(v, req.GetRequestId(), now)
	if o.node != "" {
		have := v.nodeRow(o.node)
		if !have.exists {
			return nil, NodeNotFound(o.node)
		}
		p.unchanged(registryv1.Table_TABLE_NODE, o.node, have.modified)
	} else {
		have := v.serviceRow(o.service)
		if !have.exists {
			return nil, ServiceNotFound(o.service)
		}
		p.unchanged(registryv1.Table_TABLE_SERVICE, o.service, have.modified)
	}
	was := findCheck(v.checksOf(o), CheckMaintenance).value()
	fresh := &registryv1.Check{
		Id: CheckMaintenance, Name: "maintenance", ServiceId: o.service, Node: o.node, Status: critical, Output: req.GetReason(),
	}
	switch {
	case !req.GetEnabled() && was != nil:
		p.delete(registryv1.Table_TABLE_CHECK, o.key())
	case req.GetEnabled() && (was == nil || was.GetOutput() != fresh.GetOutput()):
		p.putCheck(o, was.GetModifyIndex(), fresh)
	}
	return p.done()
}

// Heartbeat returns the plan that notes that nodes live, and which of them nobody expects
// heartbeats of.
func (w *Writer) Heartbeat(v *View, req *registryv1.HeartbeatRequest, now time.Time) (*Plan, []string, error) {
	if n := len(req.GetNodes()); n == 0 || n > maxCheckRuns {
		return nil, nil, fault.Invalid("nodes", "are %d; 1 to %d are allowed", n, maxCheckRuns)
	}
	p := w.plan(v, req.GetRequestId(), now)
	var unknown []string
	revived := map[string]bool{}
	for _, name := range req.GetNodes() {
		have := v.nodeRow(name)
		was := findCheck(have.checks, CheckLiveness)
		switch {
		case have.ttl == nil || was == nil:
			unknown = append(unknown, name)
		case was.status == passing:
			p.Renews = append(p.Renews, dueHeartbeat+name)
		case !revived[name]:
			revived[name] = true
			p.putCheck(owner{node: name, check: CheckLiveness}, was.indexOf(), livenessCheck(name, passing, ""))
		}
	}
	done, err := p.done()
	return done, unknown, err
}

// Expire returns the command that a passed deadline asks for, nil when it has been overtaken.
func (w *Writer) Expire(v *View, deadline string, now time.Time) (*registryv1.Command, error) {
	p := w.plan(v, "", now)
	switch kind, name := Deadline(deadline); kind {
	case DeadlineReport:
		o := ownerOf(name)
		was := findCheck(v.checksOf(o), o.check).value()
		if was.GetTtl() == nil || was.GetStatus() == critical {
			return nil, nil
		}
		fresh := proto.CloneOf(was)
		fresh.Status, fresh.Output = critical, fmt.Sprintf("no report within %v", was.GetTtl().AsDuration())
		p.putCheck(o, was.GetModifyIndex(), fresh)
	case DeadlineHeartbeat:
		have := v.nodeRow(name)
		was := findCheck(have.checks, CheckLiveness)
		if have.ttl == nil || was == nil || was.status == critical {
			return nil, nil
		}
		p.unchanged(registryv1.Table_TABLE_NODE, name, have.modified)
		p.putCheck(owner{node: name, check: CheckLiveness}, was.indexOf(),
			livenessCheck(name, critical, fmt.Sprintf("no heartbeat within %v", have.ttl.AsDuration())))
	case DeadlineReap:
		have := v.nodeRow(name)
		was := findCheck(have.checks, CheckLiveness)
		if was == nil || was.status != critical {
			return nil, nil
		}
		// A sign of life, or a registration on the node, changes its check. Of very many instances
		// the first ones go: who finds the node there still lets the deadline pass once more.
		p.unchanged(registryv1.Table_TABLE_CHECK, owner{node: name, check: CheckLiveness}.key(), was.modified)
		p.deregisterNode(name)
	case DeadlineEmpty:
		have := v.nodeRow(name)
		if !have.exists || !have.implicit || !have.empty || len(have.checks) > 0 {
			return nil, nil
		}
		// A registration on the node changes its row.
		p.unchanged(registryv1.Table_TABLE_NODE, name, have.modified)
		p.deregisterNode(name)
	}
	return p.Command, p.err
}

// checksOf returns the checks of a check's owner.
func (v *View) checksOf(o owner) []*check {
	if o.node != "" {
		return v.nodeRow(o.node).checks
	}
	return v.serviceRow(o.service).checks
}

// stored is a row of a node or a service as plans are made on it, with its checks.
type stored struct {
	exists   bool
	raw      []byte
	modified uint64
	checks   []*check
	// ttl is a node's, nil unless heartbeats are expected.
	ttl *durationpb.Duration
	// address is a node's or a service's; implicit and empty say of a node that it was made for
	// instances, and that it has none.
	address         string
	implicit, empty bool
	// name, node, owner and port are a service's.
	name, node, owner string
	port              uint32
}

// says reports whether the row is there and has this value.
func (s stored) says(value []byte) bool { return s.exists && bytes.Equal(s.raw, value) }

func (v *View) nodeRow(name string) stored {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n := v.nodes[name]
	if n == nil {
		return stored{}
	}
	return stored{exists: n.exists, raw: n.raw, modified: n.modified, checks: n.checks, ttl: n.ttl, address: n.address, implicit: n.implicit, empty: len(n.instances) == 0}
}

func (v *View) serviceRow(id string) stored {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i := v.instances[id]
	if i == nil {
		return stored{}
	}
	if i.service == nil {
		return stored{checks: i.checks}
	}
	return stored{
		exists: true, raw: i.raw, modified: i.modified, checks: i.checks,
		name: i.service.name, node: i.node.name, address: i.address, port: i.port, owner: i.owner,
	}
}

// instancesOn returns the ids of a node's instances.
func (v *View) instancesOn(node string) []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n := v.nodes[node]
	if n == nil {
		return nil
	}
	ids := make([]string, len(n.instances))
	for at, i := range n.instances {
		ids[at] = i.id
	}
	return ids
}
