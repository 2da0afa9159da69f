package catalog

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused writes and failed conditions.
const (
	// ReasonCheckMoved is a lost race about a check's status: plan again.
	ReasonCheckMoved = "CHECK_MOVED"
	// ReasonServiceNotFound says that no instance of that id is registered.
	ReasonServiceNotFound = "SERVICE_NOT_FOUND"
	// ReasonCheckNotFound says that the instance has no check of that id.
	ReasonCheckNotFound = "CHECK_NOT_FOUND"
	// ReasonPolicyNotFound says that the service has no failover policy.
	ReasonPolicyNotFound = "FAILOVER_POLICY_NOT_FOUND"
)

// Writer makes commands for one datacenter.
type Writer struct {
	datacenter string
	rules      rules
}

// NewWriter answers a writer whose rows originate in a datacenter.
func NewWriter(datacenter string) *Writer { return &Writer{datacenter: datacenter, rules: newRules()} }

// plan collects the operations of one command.
type plan struct {
	w   *Writer
	cmd *registryv1.Command
	err error
}

func (w *Writer) plan(requestID string) *plan {
	return &plan{w: w, cmd: &registryv1.Command{RequestId: requestID}}
}

func (p *plan) put(table registryv1.Table, key string, m proto.Message) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		p.err = errors.Join(p.err, fmt.Errorf("encode %s: %w", table, err))
		return
	}
	p.cmd.Operations = append(p.cmd.Operations, &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
		Table: table, Key: key, Value: value, OriginDatacenter: p.w.datacenter,
	}}})
}

func (p *plan) delete(table registryv1.Table, key string) {
	p.cmd.Operations = append(p.cmd.Operations, &registryv1.Operation{Op: &registryv1.Operation_Delete{
		Delete: &registryv1.RecordKey{Table: table, Key: key},
	}})
}

func (p *plan) unchanged(table registryv1.Table, key string, modifyIndex uint64) {
	p.cmd.Conditions = append(p.cmd.Conditions, &registryv1.Condition{
		Row: &registryv1.RecordKey{Table: table, Key: key}, ModifyIndex: modifyIndex, Reason: ReasonCheckMoved,
	})
}

// Register answers the command of a registration against the state in r, and the service as it will
// be stored (nil for a node alone). A command without operations has nothing to change.
func (w *Writer) Register(r record.Reader, req *registryv1.RegisterRequest, now time.Time) (*registryv1.Command, *registryv1.Service, error) {
	node := proto.CloneOf(req.GetNode())
	service := proto.CloneOf(req.GetService())
	if err := w.complete(node, service, req.GetChecks()); err != nil {
		return nil, nil, err
	}
	p := w.plan(req.GetRequestId())
	if err := p.replace(r, registryv1.Table_TABLE_NODE, node.GetName(), node, &registryv1.Node{}); err != nil {
		return nil, nil, err
	}
	if service != nil {
		if err := p.replace(r, registryv1.Table_TABLE_SERVICE, service.GetId(), service, &registryv1.Service{}); err != nil {
			return nil, nil, err
		}
		if err := p.replaceChecks(r, service.GetId(), req.GetChecks(), now); err != nil {
			return nil, nil, err
		}
	}
	return p.cmd, service, p.err
}

// complete fills defaults and checks everything, so that the caller hears of all that is wrong at once.
func (w *Writer) complete(node *registryv1.Node, service *registryv1.Service, checks []*registryv1.Check) error {
	errs := []error{w.rules.node(node)}
	if node != nil {
		node.CreateIndex, node.ModifyIndex = 0, 0
	}
	if service != nil {
		service.CreateIndex, service.ModifyIndex = 0, 0
		if service.GetId() == "" {
			service.Id = service.GetName()
		}
		if service.GetNode() == "" {
			service.Node = node.GetName()
		}
		errs = append(errs, w.rules.service(service, node.GetName()), w.rules.checks(checks, service.GetId()))
	} else if len(checks) > 0 {
		errs = append(errs, fault.Invalid("checks", "need a service").WithRemedy("register the service with its checks"))
	}
	return errors.Join(errs...)
}

// replace puts a message unless an equal one is stored.
func (p *plan) replace(r record.Reader, table registryv1.Table, key string, fresh, stored proto.Message) error {
	row, err := r.Get(table, key)
	if err != nil {
		return err
	}
	if record.Live(row) {
		if err := proto.Unmarshal(row.GetValue(), stored); err != nil {
			return fmt.Errorf("decode %s: %w", table, err)
		}
		if proto.Equal(fresh, stored) {
			return nil
		}
	}
	p.put(table, key, fresh)
	return nil
}

func (p *plan) replaceChecks(r record.Reader, service string, checks []*registryv1.Check, now time.Time) error {
	type stored struct {
		check *registryv1.Check
		index uint64
	}
	old := map[string]stored{}
	var failure error
	options := record.ScanOptions{Prefix: service + "/"}
	err := r.Scan(registryv1.Table_TABLE_CHECK, options, func(row *registryv1.Record) bool {
		check := &registryv1.Check{}
		failure = errors.Join(failure, proto.Unmarshal(row.GetValue(), check))
		old[check.GetId()] = stored{check, row.GetModifyIndex()}
		return true
	})
	if err := errors.Join(err, failure); err != nil {
		return fmt.Errorf("read the checks of a service: %w", err)
	}
	kept := map[string]bool{}
	for _, c := range checks {
		kept[c.GetId()] = true
		fresh := proto.CloneOf(c)
		fresh.ServiceId, fresh.ModifyIndex, fresh.ModifiedAt = service, 0, timestamppb.New(now)
		was, known := old[c.GetId()]
		keeps := fresh.GetStatus() == registryv1.HealthStatus_HEALTH_STATUS_UNSPECIFIED
		switch {
		case keeps && known:
			fresh.Status, fresh.Output, fresh.ModifiedAt = was.check.GetStatus(), was.check.GetOutput(), was.check.GetModifiedAt()
		case keeps:
			// A check that has not run yet must not attract traffic.
			fresh.Status = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
		}
		if known && was.check.GetStatus() == fresh.GetStatus() && was.check.GetName() == fresh.GetName() {
			continue
		}
		if keeps && known {
			p.unchanged(registryv1.Table_TABLE_CHECK, checkKey(service, c.GetId()), was.index)
		}
		p.put(registryv1.Table_TABLE_CHECK, checkKey(service, c.GetId()), fresh)
	}
	for id := range old {
		if !kept[id] {
			p.delete(registryv1.Table_TABLE_CHECK, checkKey(service, id))
		}
	}
	return nil
}

func checkKey(service, check string) string { return service + "/" + check }

// Deregister answers the command that removes an instance with its checks. It changes nothing when
// the instance is not there.
func (w *Writer) Deregister(req *registryv1.DeregisterRequest) (*registryv1.Command, error) {
	if err := w.rules.identifier("service_id", req.GetServiceId()); err != nil {
		return nil, err
	}
	p := w.plan(req.GetRequestId())
	p.delete(registryv1.Table_TABLE_SERVICE, req.GetServiceId())
	p.cmd.Operations = append(p.cmd.Operations, &registryv1.Operation{Op: &registryv1.Operation_DeletePrefix{
		DeletePrefix: &registryv1.RecordKey{Table: registryv1.Table_TABLE_CHECK, Key: req.GetServiceId() + "/"},
	}})
	return p.cmd, nil
}

// ServiceNotFound is the answer about an instance that is not there.
func ServiceNotFound(id string) error {
	return fault.New(fault.NotFound, ReasonServiceNotFound, "no service instance %q is registered here", id).WithField("service_id")
}

// UpdateChecks answers the command that records check outcomes. A status that did not change needs
// no operation; a command without operations needs no commit.
func (w *Writer) UpdateChecks(r record.Reader, req *registryv1.UpdateChecksRequest, now time.Time) (*registryv1.Command, error) {
	if n := len(req.GetUpdates()); n == 0 || n > maxCheckRuns {
		return nil, fault.Invalid("updates", "are %d; 1 to %d are allowed", n, maxCheckRuns)
	}
	p := w.plan(req.GetRequestId())
	for i, u := range req.GetUpdates() {
		field := fmt.Sprintf("updates[%d]", i)
		if err := errors.Join(status(field+".status", u.GetStatus(), false), output(field+".output", u.GetOutput())); err != nil {
			return nil, err
		}
		key := checkKey(u.GetServiceId(), u.GetCheckId())
		row, err := r.Get(registryv1.Table_TABLE_CHECK, key)
		if err != nil {
			return nil, err
		}
		if !record.Live(row) {
			return nil, fault.New(fault.NotFound, ReasonCheckNotFound, "service instance %q has no check %q", u.GetServiceId(), u.GetCheckId()).
				WithField(field).WithRemedy("register the service with its checks again")
		}
		check := &registryv1.Check{}
		if err := proto.Unmarshal(row.GetValue(), check); err != nil {
			return nil, fmt.Errorf("decode check: %w", err)
		}
		if check.GetStatus() == u.GetStatus() {
			continue
		}
		check.Status, check.Output, check.ModifiedAt = u.GetStatus(), u.GetOutput(), timestamppb.New(now)
		p.unchanged(registryv1.Table_TABLE_CHECK, key, row.GetModifyIndex())
		p.put(registryv1.Table_TABLE_CHECK, key, check)
	}
	return p.cmd, p.err
}

// Moved is the answer to a write that kept losing races about a check.
func Moved() error {
	return fault.New(fault.Aborted, ReasonCheckMoved, "the checks changed while they were written").WithRemedy("try again")
}

// CheckServiceName answers an InvalidArgument fault unless name can name a service.
func (w *Writer) CheckServiceName(name string) error { return w.rules.serviceName("service", name) }
