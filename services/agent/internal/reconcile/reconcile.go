// Package reconcile finds what must be done so that the registry says what this node says.
//
// It is pure: two states in, a plan out. It promises that a plan, once done, leaves nothing to do,
// that nothing is removed that an agent of this node did not register, that nothing is removed
// while the desired state is incomplete, and that a service id held by another node is left to it.
package reconcile

import (
	"maps"
	"slices"
	"strings"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// The mark of what an agent registered, in a service's meta. What people register on the same node
// does not carry it and is left alone.
const (
	MarkKey   = "managed-by"
	MarkValue = "konsul-agent"
)

// Instance is a service instance with its checks. A check of unspecified status has not run yet.
type Instance struct {
	Service *registryv1.Service
	Checks  []*registryv1.Check
}

// Desired is what this node says.
type Desired struct {
	Node      *registryv1.Node
	Instances []Instance
	// Complete is false while there may be more instances than these.
	Complete bool
}

// Actual is what the registry says: this node, if it is there, and every instance that has a
// desired id or is on this node. Further instances do no harm.
type Actual struct {
	Node      *registryv1.Node
	Instances []Instance
}

// Conflict is a desired instance whose id another node holds.
type Conflict struct {
	ServiceID string
	Node      string
}

// Plan is what to do.
type Plan struct {
	// RegisterNode: the node is missing or changed. Instances bring it along, but each of them may
	// be refused.
	RegisterNode bool
	Register     []Instance
	// Deregister lists service ids.
	Deregister []string
	// Updates are outcomes of checks that the registry does not know.
	Updates []*registryv1.CheckUpdate
	// Matching lists instances, as the registry has them, that need no registration.
	Matching  []Instance
	Conflicts []Conflict
}

// Diff returns the plan that turns actual into desired.
func Diff(desired Desired, actual Actual) Plan {
	var plan Plan
	there := map[string]Instance{}
	for _, instance := range actual.Instances {
		there[instance.Service.GetId()] = instance
	}
	wanted := map[string]bool{}
	for _, instance := range desired.Instances {
		id := instance.Service.GetId()
		wanted[id] = true
		have, found := there[id]
		switch {
		case found && have.Service.GetNode() != desired.Node.GetName():
			plan.Conflicts = append(plan.Conflicts, Conflict{ServiceID: id, Node: have.Service.GetNode()})
		case !found || !sameService(instance.Service, have.Service) || !sameChecks(instance.Checks, have.Checks):
			plan.Register = append(plan.Register, withStatus(instance, have))
		default:
			plan.Matching = append(plan.Matching, have)
			plan.Updates = append(plan.Updates, updates(instance, have)...)
		}
	}
	if desired.Complete {
		for _, id := range slices.Sorted(maps.Keys(there)) {
			if s := there[id].Service; !wanted[id] && s.GetNode() == desired.Node.GetName() && Ours(s) {
				plan.Deregister = append(plan.Deregister, id)
			}
		}
	}
	plan.RegisterNode = !sameNode(desired.Node, actual.Node)
	return plan
}

// sameNode compares what the agent says of its node. Meta that others gave it is left alone.
func sameNode(a, b *registryv1.Node) bool {
	return a.GetName() == b.GetName() && a.GetAddress() == b.GetAddress() &&
		(len(a.GetMeta()) == 0 || maps.Equal(a.GetMeta(), b.GetMeta())) &&
		a.GetLivenessTtl().AsDuration() == b.GetLivenessTtl().AsDuration()
}

// Ours reports whether an agent registered a service, and people did not.
func Ours(s *registryv1.Service) bool { return s.GetMeta()[MarkKey] == MarkValue }

// sameService compares what a definition says, not what the registry adds. The order of tags means
// nothing.
func sameService(a, b *registryv1.Service) bool {
	return a.GetName() == b.GetName() && a.GetAddress() == b.GetAddress() && a.GetPort() == b.GetPort() &&
		slices.Equal(sorted(a.GetTags()), sorted(b.GetTags())) && maps.Equal(a.GetMeta(), b.GetMeta())
}

func sorted(tags []string) []string { return slices.Sorted(slices.Values(tags)) }

func sameChecks(a, b []*registryv1.Check) bool {
	b = slices.DeleteFunc(slices.Clone(b), registrys)
	return maps.Equal(names(a), names(b))
}

func names(checks []*registryv1.Check) map[string]string {
	byID := make(map[string]string, len(checks))
	for _, c := range checks {
		byID[c.GetId()] = c.GetName()
	}
	return byID
}

// registrys says that a check is the registry's own, such as that of maintenance: no agent runs it
// or takes it away.
func registrys(c *registryv1.Check) bool { return strings.HasPrefix(c.GetId(), "_") }

func byID(checks []*registryv1.Check, id string) *registryv1.Check {
	i := slices.IndexFunc(checks, func(c *registryv1.Check) bool { return c.GetId() == id })
	if i < 0 {
		return nil
	}
	return checks[i]
}

// withStatus returns the instance with a status for each check. One that has not run keeps what the
// registry has, so that an agent's restart is no outage; a check that is new counts as critical
// until it has run.
func withStatus(instance, have Instance) Instance {
	checks := make([]*registryv1.Check, len(instance.Checks))
	for i, c := range instance.Checks {
		status, output := c.GetStatus(), c.GetOutput()
		if status == registryv1.HealthStatus_HEALTH_STATUS_UNSPECIFIED {
			status, output = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL, "has not run yet"
			if old := byID(have.Checks, c.GetId()); old != nil {
				status, output = old.GetStatus(), old.GetOutput()
			}
		}
		checks[i] = &registryv1.Check{
			Id: c.GetId(), Name: c.GetName(), ServiceId: instance.Service.GetId(), Status: status, Output: output,
		}
	}
	return Instance{Service: instance.Service, Checks: checks}
}

func updates(instance, have Instance) []*registryv1.CheckUpdate {
	var found []*registryv1.CheckUpdate
	for _, c := range instance.Checks {
		old := byID(have.Checks, c.GetId())
		known := c.GetStatus() != registryv1.HealthStatus_HEALTH_STATUS_UNSPECIFIED
		// The output alone is no difference: the registry keeps the one that came with the status.
		if known && c.GetStatus() != old.GetStatus() {
			found = append(found, &registryv1.CheckUpdate{
				ServiceId: instance.Service.GetId(), CheckId: c.GetId(), Status: c.GetStatus(), Output: c.GetOutput(),
			})
		}
	}
	return found
}
