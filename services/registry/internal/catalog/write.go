package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused writes and failed conditions.
const (
	// ReasonCheckMoved is a lost race about a check's status or a node: plan again.
	ReasonCheckMoved = "CHECK_MOVED"
	// ReasonServiceIDTaken means that somebody else has the id of a service: another node, service
	// or owner.
	ReasonServiceIDTaken = "SERVICE_ID_TAKEN"
	// ReasonServiceNotFound says that no instance of that id is registered.
	ReasonServiceNotFound = "SERVICE_NOT_FOUND"
	// ReasonNodeNotFound says that no node of that name is registered.
	ReasonNodeNotFound = "NODE_NOT_FOUND"
	// ReasonCheckNotFound says that the instance or node has no check of that id.
	ReasonCheckNotFound = "CHECK_NOT_FOUND"
	// ReasonPolicyNotFound says that the service has no failover policy.
	ReasonPolicyNotFound = "FAILOVER_POLICY_NOT_FOUND"
)

// DefaultMaxServices is how many instances one request may register unless a setting says
// otherwise.
const DefaultMaxServices = 500

// Writer makes commands for one datacenter.
type Writer struct {
	datacenter  string
	rules       rules
	maxServices int
	// owners reports whether whoever registered something still exists.
	owners func(registeredBy string) bool
}

// NewWriter returns a writer whose rows originate in a datacenter. A registration may carry at most
// maxServices instances.
func NewWriter(datacenter string, maxServices int) *Writer {
	return &Writer{datacenter: datacenter, rules: newRules(), maxServices: maxServices, owners: func(string) bool { return true }}
}

// WithOwners makes the writer ask whether an owner still exists: what belonged to one that does
// not, such as a token that was deleted, is anybody's who registers it again on its node for its
// service.
func (w *Writer) WithOwners(exist func(registeredBy string) bool) *Writer {
	w.owners = exist
	return w
}

// Plan is what a request means in a state of the catalogue.
type Plan struct {
	// Command changes the state. Without operations there is nothing to change.
	Command *registryv1.Command
	// Renews lists the deadlines that begin anew when the command, if any, has been applied.
	Renews []string
	// RemovedChecks lists the checks that a registration removes because it does not name them.
	RemovedChecks []string
}

// plan collects a Plan.
type plan struct {
	Plan
	w   *Writer
	v   *View
	now time.Time
	err error
}

func (w *Writer) plan(v *View, requestID string, now time.Time) *plan {
	return &plan{w: w, v: v, now: now, Plan: Plan{Command: &registryv1.Command{RequestId: requestID}}}
}

func (p *plan) done() (*Plan, error) {
	if p.err != nil {
		return nil, p.err
	}
	return &p.Plan, nil
}

func (p *plan) put(table registryv1.Table, key string, m proto.Message) {
	p.putValue(table, key, p.encode(m))
}

// encode returns the value of a row.
func (p *plan) encode(m proto.Message) []byte {
	value, err := record.Encode(m)
	p.err = errors.Join(p.err, err)
	return value
}

func (p *plan) putValue(table registryv1.Table, key string, value []byte) {
	p.Command.Operations = append(p.Command.Operations, record.PutValue(table, key, p.w.datacenter, value))
}

func (p *plan) delete(table registryv1.Table, key string) {
	p.Command.Operations = append(p.Command.Operations, record.Delete(table, key))
}

func (p *plan) deletePrefix(table registryv1.Table, prefix string) {
	p.Command.Operations = append(p.Command.Operations, &registryv1.Operation{Op: &registryv1.Operation_DeletePrefix{
		DeletePrefix: &registryv1.RecordKey{Table: table, Key: prefix},
	}})
}

func (p *plan) unchanged(table registryv1.Table, key string, modifyIndex uint64) {
	p.Command.Conditions = append(p.Command.Conditions, record.When(table, key, modifyIndex, ReasonCheckMoved))
}

// putCheck writes a check that must still be as it was planned on: was is its index, 0 when there
// was none.
func (p *plan) putCheck(o owner, was uint64, fresh *registryv1.Check) {
	fresh.ModifyIndex, fresh.ModifiedAt = 0, timestamppb.New(p.now)
	p.unchanged(registryv1.Table_TABLE_CHECK, o.key(), was)
	p.put(registryv1.Table_TABLE_CHECK, o.key(), fresh)
}

// Register returns the plan of a registration by somebody (empty: not known) against the catalogue
// in v, and the service as it will be stored (nil for a node alone). AlreadyExists when the
// instance is somebody else's.
func (w *Writer) Register(v *View, req *registryv1.RegisterRequest, by string, now time.Time) (*Plan, *registryv1.Service, error) {
	batch := &registryv1.RegisterNodeRequest{Node: req.GetNode(), RequestId: req.GetRequestId()}
	if req.GetService() != nil {
		batch.Services = []*registryv1.ServiceRegistration{{Service: req.GetService(), Checks: req.GetChecks()}}
	} else {
		batch.Checks = req.GetChecks()
	}
	r, err := w.complete(batch, func(int) string { return "" })
	if err != nil {
		return nil, nil, err
	}
	r.by, r.replace, r.implicit = by, req.GetReplace(), req.GetService() != nil
	p := w.plan(v, req.GetRequestId(), now)
	p.register(r)
	done, err := p.done()
	if err != nil || len(r.services) == 0 {
		return done, nil, err
	}
	return done, r.services[0].service, nil
}

// RegisterNode returns the plan of a registration of many instances by somebody; see Register.
func (w *Writer) RegisterNode(v *View, req *registryv1.RegisterNodeRequest, by string, now time.Time) (*Plan, error) {
	r, err := w.complete(req, func(i int) string { return fmt.Sprintf("services[%d].", i) })
	if err != nil {
		return nil, err
	}
	r.by, r.replace = by, req.GetReplace()
	p := w.plan(v, req.GetRequestId(), now)
	p.register(r)
	return p.done()
}

// registration is a request with its defaults filled in.
type registration struct {
	node     *registryv1.Node
	checks   []*registryv1.Check
	services []serviceRegistration
	// by is who registers; empty: not known.
	by string
	// replace says that it may take over what is somebody else's.
	replace bool
	// implicit says that it is about an instance: the node is only where that runs.
	implicit bool
}

type serviceRegistration struct {
	// service is the plan's own, and becomes what is stored.
	service *registryv1.Service
	checks  []*registryv1.Check
	// field stands in front of the service's fields in errors; unnamed says that the id is the
	// default.
	field   string
	unnamed bool
}

// complete fills defaults and checks everything, so that the caller hears of all that is wrong at
// once. The request stays as it is: whoever carries it to another leader must ask for the same
// there. prefix stands in front of the fields of a service in what is said about them.
func (w *Writer) complete(req *registryv1.RegisterNodeRequest, prefix func(i int) string) (registration, error) {
	if n := len(req.GetServices()); n > w.maxServices {
		return registration{}, fault.Invalid("services", "are %d; at most %d are allowed", n, w.maxServices).
			WithRemedy("register them in several requests, or raise registry.catalog.max_services_per_request")
	}
	r := registration{node: req.GetNode(), checks: req.GetChecks(), services: make([]serviceRegistration, 0, len(req.GetServices()))}
	errs := []error{w.rules.node(r.node), w.rules.checks("checks", r.checks, owner{node: r.node.GetName()})}
	seen := make(map[string]bool, len(req.GetServices()))
	for i, s := range req.GetServices() {
		if s.GetService() == nil {
			errs = append(errs, fault.Invalid(prefix(i)+"service", "is missing"))
			continue
		}
		service := proto.CloneOf(s.GetService())
		service.Id, service.Node = cmp.Or(service.GetId(), service.GetName()), cmp.Or(service.GetNode(), r.node.GetName())
		field := prefix(i) + "service"
		errs = append(errs, w.rules.service(field, service, r.node.GetName()), w.rules.checks(prefix(i)+"checks", s.GetChecks(), owner{service: service.GetId()}))
		if seen[service.GetId()] {
			errs = append(errs, fault.Invalid(field+".id", "%q is there twice", service.GetId()).WithRemedy("give each instance an id of its own"))
		}
		seen[service.GetId()] = true
		r.services = append(r.services, serviceRegistration{
			service: service, checks: s.GetChecks(), field: field, unnamed: s.GetService().GetId() == "",
		})
	}
	return r, errors.Join(errs...)
}

func (p *plan) register(r registration) {
	name := r.node.GetName()
	have := p.v.nodeRow(name)
	node, named := p.registerNode(r, have)
	if node == nil {
		return
	}
	p.expectHeartbeats(node, named, have.checks)
	p.registerChecks(owner{node: name}, have.checks, r.checks, true)
	arrives := false
	for _, s := range r.services {
		arrives = p.registerService(r, s, node, have) || arrives
	}
	if arrives && have.implicit && have.empty {
		// Who reaps the empty node at the same time must not leave the instance without it.
		p.put(registryv1.Table_TABLE_NODE, node.GetName(), node)
	}
	liveness := findCheck(have.checks, CheckLiveness)
	switch {
	case len(p.Command.GetOperations()) == 0:
		p.Command.Conditions = nil
	case !named && liveness != nil && liveness.status == critical && node.GetLivenessTtl() != nil:
		// It is no sign of life, but who reaps the dead node at the same time must plan anew.
		was := liveness.value()
		p.putCheck(owner{node: name, check: CheckLiveness}, was.GetModifyIndex(), livenessCheck(name, critical, was.GetOutput()))
	}
}

// registerNode puts the node's row unless it stands so. It returns the node as it will be, nil when
// it cannot be made, and whether the registration says how often the node must send heartbeats.
func (p *plan) registerNode(r registration, have stored) (node *registryv1.Node, named bool) {
	node = &registryv1.Node{
		Name: r.node.GetName(), Address: r.node.GetAddress(), Meta: r.node.GetMeta(), LivenessTtl: r.node.GetLivenessTtl(),
		Implicit: r.implicit && len(r.node.GetMeta()) == 0 && r.node.GetLivenessTtl() == nil && (!have.exists || have.implicit),
	}
	node.ProtoReflect().SetUnknown(r.node.ProtoReflect().GetUnknown())
	named = node.LivenessTtl != nil || r.replace || !have.exists
	if node.LivenessTtl.AsDuration() == 0 {
		node.LivenessTtl = nil
	}
	if !have.exists && node.Address == "" {
		// An instance's address is as good: both are where its node is reached.
		if len(r.services) == 1 {
			node.Address = r.services[0].service.GetAddress()
		}
		if node.Address == "" {
			p.err = errors.Join(p.err, fault.Invalid("node.address", "is missing: no node %q is registered", node.Name).WithRemedy("give the node's address"))
			return nil, false
		}
	}
	value := p.encode(node)
	if !have.says(value) && have.exists {
		// What is not named stays.
		was := &registryv1.Node{}
		decode(have.raw, was)
		if node.Address == "" {
			node.Address = was.GetAddress()
		}
		if len(node.Meta) == 0 && !r.replace {
			node.Meta = was.GetMeta()
		}
		if !named {
			node.LivenessTtl = was.GetLivenessTtl()
		}
		value = p.encode(node)
	}
	if have.says(value) {
		// Who deregisters the node at the same time must not leave what is registered here without
		// it.
		p.unchanged(registryv1.Table_TABLE_NODE, node.Name, have.modified)
		return node, named
	}
	p.putValue(registryv1.Table_TABLE_NODE, node.GetName(), value)
	return node, named
}

// registerService puts an instance's row unless it stands so, and reports whether the instance is
// new on its node.
func (p *plan) registerService(r registration, s serviceRegistration, node *registryv1.Node, on stored) (arrives bool) {
	id, by := s.service.GetId(), r.by
	have := p.v.serviceRow(id)
	s.service.RegisteredBy, s.service.CreateIndex, s.service.ModifyIndex = by, 0, 0
	value := p.encode(s.service)
	arrives = !have.exists
	claims := !have.exists || r.replace
	if have.exists && !have.says(value) {
		arrives = have.node != node.GetName()
		claims = claims || by != "" && have.owner != by
		if err := p.w.taken(r, s, have, node, on); err != nil {
			p.err = errors.Join(p.err, err)
			return arrives
		}
		if by == "" { // Who registers is not known, so it stays whose it was.
			s.service.RegisteredBy = have.owner
			value = p.encode(s.service)
		}
	}
	if !have.says(value) {
		if claims {
			// Of two who claim an id at the same time, the second must find the first. Those who
			// have it may overtake themselves.
			p.unchanged(registryv1.Table_TABLE_SERVICE, id, have.modified)
		}
		p.putValue(registryv1.Table_TABLE_SERVICE, id, value)
	}
	p.registerChecks(owner{service: id}, have.checks, s.checks, false)
	return arrives
}

// taken returns AlreadyExists when the instance that is there is not the one that is registered, or
// not theirs who register.
func (w *Writer) taken(r registration, s serviceRegistration, have stored, node *registryv1.Node, on stored) error {
	if r.replace {
		return nil
	}
	elsewhere := have.node != node.GetName() || have.name != s.service.GetName()
	owned := have.owner != "" && r.by != "" && have.owner != r.by && w.owners(have.owner)
	at := cmp.Or(have.address, on.address)
	another := s.unnamed && (at != cmp.Or(s.service.GetAddress(), node.GetAddress()) || have.port != s.service.GetPort())
	if !elsewhere && !owned && !another {
		return nil
	}
	whose := ""
	if have.owner != "" {
		whose = ", registered by " + have.owner
	}
	if another && !elsewhere && !owned {
		whose = fmt.Sprintf(" at %s", net.JoinHostPort(at, strconv.Itoa(int(have.port))))
	}
	return fault.New(fault.AlreadyExists, ReasonServiceIDTaken, "%q is an instance of service %s on node %s%s", s.service.GetId(), have.name, have.node, whose).
		WithField(s.field + ".id").WithRemedy("give this instance an id of its own, or say that it replaces the other one")
}

// registerChecks puts the checks that changed. Unless they are kept, checks that are not named go,
// but for the registry's own.
func (p *plan) registerChecks(o owner, have []*check, checks []*registryv1.Check, keep bool) {
	if len(have) == 0 && len(checks) == 0 {
		return
	}
	named := map[string]bool{}
	for _, c := range checks {
		o.check = c.GetId()
		named[c.GetId()] = true
		was := findCheck(have, c.GetId()).value()
		fresh := proto.CloneOf(c)
		fresh.ServiceId, fresh.Node = o.service, o.node
		keeps := fresh.GetStatus() == registryv1.HealthStatus_HEALTH_STATUS_UNSPECIFIED
		switch {
		case keeps && was != nil:
			fresh.Status, fresh.Output = was.GetStatus(), was.GetOutput()
		case keeps:
			// A check that has not run yet must not attract traffic.
			fresh.Status = critical
		case fresh.GetTtl() != nil:
			p.Renews = append(p.Renews, dueReport+o.key())
		}
		if was != nil && was.GetStatus() == fresh.GetStatus() && was.GetName() == fresh.GetName() && proto.Equal(was.GetTtl(), fresh.GetTtl()) {
			continue
		}
		fresh.ModifyIndex, fresh.ModifiedAt = 0, timestamppb.New(p.now)
		if keeps && was != nil {
			fresh.ModifiedAt = was.GetModifiedAt()
			p.unchanged(registryv1.Table_TABLE_CHECK, o.key(), was.GetModifyIndex())
		}
		p.put(registryv1.Table_TABLE_CHECK, o.key(), fresh)
	}
	for _, c := range have {
		if !keep && !named[c.id] && !strings.HasPrefix(c.id, reserved) {
			o.check = c.id
			p.RemovedChecks = append(p.RemovedChecks, c.id)
			p.delete(registryv1.Table_TABLE_CHECK, o.key())
		}
	}
}

// expectHeartbeats keeps the check that says whether a node lives. Whoever registers it with its
// TTL is a sign of life; who does not name that leaves the check as it is.
func (p *plan) expectHeartbeats(n *registryv1.Node, named bool, checks []*check) {
	o := owner{node: n.GetName(), check: CheckLiveness}
	was := findCheck(checks, CheckLiveness)
	switch {
	case n.GetLivenessTtl() == nil && was != nil:
		p.delete(registryv1.Table_TABLE_CHECK, o.key())
	case n.GetLivenessTtl() == nil:
	case !named && was != nil:
	case was != nil && was.status == passing:
		p.Renews = append(p.Renews, dueHeartbeat+n.GetName())
	default:
		p.putCheck(o, was.indexOf(), livenessCheck(n.GetName(), passing, ""))
	}
}

func livenessCheck(node string, status registryv1.HealthStatus, output string) *registryv1.Check {
	return &registryv1.Check{Id: CheckLiveness, Name: "heartbeats", Node: node, Status: status, Output: output}
}

// Deregister returns the plan that removes an instance with its checks. It changes nothing when the
// instance is not there.
func (w *Writer) Deregister(v *View, req *registryv1.DeregisterRequest) (*Plan, error) {
	if err := w.rules.identifier("service_id", req.GetServiceId()); err != nil {
		return nil, err
	}
	p := w.plan(v, req.GetRequestId(), time.Time{})
	p.deregister(req.GetServiceId())
	return p.done()
}

func (p *plan) deregister(id string) {
	p.delete(registryv1.Table_TABLE_SERVICE, id)
	p.deletePrefix(registryv1.Table_TABLE_CHECK, id+"/")
}

// DeregisterNode returns the plan that removes a node with its instances and all their checks, or
// the first part of these, and how many instances it removes. It changes nothing when nothing of
// the node is there.
func (w *Writer) DeregisterNode(v *View, req *registryv1.DeregisterNodeRequest) (*Plan, int, error) {
	if err := w.rules.identifier("node", req.GetNode()); err != nil {
		return nil, 0, err
	}
	p := w.plan(v, req.GetRequestId(), time.Time{})
	// Who registers it at the same time must not be left with its instances alone.
	p.unchanged(registryv1.Table_TABLE_NODE, req.GetNode(), v.nodeRow(req.GetNode()).modified)
	instances := p.deregisterNode(req.GetNode())
	done, err := p.done()
	return done, instances, err
}

// rowsAtOnce is how many rows of a node's instances and their checks one commit deletes, but for
// the checks of the last one.
const rowsAtOnce = 5000

// deregisterNode removes a node, or so many of its instances as one commit may, and returns how
// many instances those are.
func (p *plan) deregisterNode(name string) int {
	rows := 0
	instances := p.v.instancesOn(name)
	for n, id := range instances {
		if rows >= rowsAtOnce {
			return n // The node stays, so that the rest is found.
		}
		rows += 1 + len(p.v.serviceRow(id).checks)
		// Somebody may have taken it to another node meanwhile.
		p.unchanged(registryv1.Table_TABLE_SERVICE, id, p.v.serviceRow(id).modified)
		p.deregister(id)
	}
	p.delete(registryv1.Table_TABLE_NODE, name)
	p.deletePrefix(registryv1.Table_TABLE_CHECK, "/"+name+"/")
	return len(instances)
}

// ServiceNotFound is the answer about an instance that is not there.
func ServiceNotFound(id string) error {
	return fault.New(fault.NotFound, ReasonServiceNotFound, "no service instance %q is registered here", id).WithField("service_id")
}

// NodeNotFound is the answer about a node that is not there.
func NodeNotFound(name string) error {
	return fault.New(fault.NotFound, ReasonNodeNotFound, "no node %q is registered here", name).WithField("node")
}

// Moved is the answer to a write that kept losing races about a check.
func Moved() error {
	return fault.New(fault.Aborted, ReasonCheckMoved, "the checks changed while they were written").WithRemedy("try again")
}

// CheckServiceName returns an InvalidArgument fault unless name can name a service.
func (w *Writer) CheckServiceName(name string) error { return w.rules.serviceName("service", name) }
