package catalog

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// SetFailoverPolicy returns the command that creates or replaces a policy.
func (w *Writer) SetFailoverPolicy(req *registryv1.SetFailoverPolicyRequest) (*registryv1.Command, error) {
	policy := proto.CloneOf(req.GetPolicy())
	if policy == nil {
		return nil, fault.Invalid("policy", "is missing")
	}
	policy.ModifyIndex = 0
	errs := []error{w.rules.serviceName("policy.service", policy.GetService())}
	if n := len(policy.GetFailover()); n > maxTargets {
		errs = append(errs, fault.Invalid("policy.failover", "has %d targets; at most %d are allowed", n, maxTargets))
	}
	seen := map[string]bool{}
	for i, target := range policy.GetFailover() {
		field := fmt.Sprintf("policy.failover[%d].datacenter", i)
		name := target.GetDatacenter()
		if !w.rules.label.MatchString(name) {
			errs = append(errs, fault.Invalid(field, "%q is no datacenter name", name).WithRemedy(labelRemedy))
		}
		if seen[name] {
			errs = append(errs, fault.Invalid(field, "%q is there twice", name).WithRemedy("name each datacenter once, in order of preference"))
		}
		seen[name] = true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p := w.plan(nil, req.GetRequestId(), time.Time{})
	p.put(registryv1.Table_TABLE_FAILOVER_POLICY, policy.GetService(), policy)
	return p.Command, p.err
}

// FailoverPolicy reads the policy of a service. NotFound when it has none.
func FailoverPolicy(r record.Reader, service string) (*registryv1.FailoverPolicy, error) {
	policy := &registryv1.FailoverPolicy{}
	row, err := record.Find(r, registryv1.Table_TABLE_FAILOVER_POLICY, service, policy)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, fault.New(fault.NotFound, ReasonPolicyNotFound, "service %q has no failover policy", service).WithField("service")
	}
	policy.ModifyIndex = row.GetModifyIndex()
	return policy, nil
}
