// Package local is what this node says: its services as defined, the last outcome of their checks,
// and how much of that the registry is known to have. Safe for concurrent use; it knows neither
// files nor sockets.
package local

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/servicedef"
	"konsul.dev/services/agent/internal/reconcile"
)

// CheckKey names a check of this node.
type CheckKey struct {
	Service, Check string
}

// Outcome is how a check ended.
type Outcome struct {
	Status registryv1.HealthStatus
	// Output is one line for people.
	Output string
}

// State is this node. Make one with New.
type State struct {
	node *registryv1.Node

	mu          sync.Mutex
	definitions []*servicedef.Definition
	complete    bool
	outcomes    map[CheckKey]Outcome
	reported    map[CheckKey]registryv1.HealthStatus // what the registry is known to have
	synced      map[string]bool                      // service ids the registry is known to have as defined
}

// New returns a node without services. Until Define is called it may have more than it knows of.
func New(node *registryv1.Node) *State {
	return &State{
		node: node, outcomes: map[CheckKey]Outcome{},
		reported: map[CheckKey]registryv1.HealthStatus{}, synced: map[string]bool{},
	}
}

// Define replaces the definitions, which have different ids. complete is false while there may be
// more services than these. Outcomes of checks that go on are kept; every service counts as not
// synced.
func (s *State) Define(definitions []*servicedef.Definition, complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.definitions, s.complete = definitions, complete
	checks := s.checks()
	gone := func(key CheckKey) bool { _, ok := checks[key]; return !ok }
	maps.DeleteFunc(s.outcomes, func(key CheckKey, _ Outcome) bool { return gone(key) })
	maps.DeleteFunc(s.reported, func(key CheckKey, _ registryv1.HealthStatus) bool { return gone(key) })
	clear(s.synced)
}

// Checks returns the checks to run.
func (s *State) Checks() map[CheckKey]servicedef.Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks()
}

func (s *State) checks() map[CheckKey]servicedef.Check {
	checks := map[CheckKey]servicedef.Check{}
	for _, d := range s.definitions {
		for _, c := range d.Checks {
			checks[CheckKey{Service: d.ID, Check: c.ID}] = c
		}
	}
	return checks
}

// Observe notes how a check ended, and says whether the registry should hear of it now: a new
// output alone can wait for the next comparison. An outcome of a check that is not defined any more
// is dropped.
func (s *State) Observe(key CheckKey, outcome Outcome) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, defined := s.checks()[key]; !defined {
		return false
	}
	s.outcomes[key] = outcome
	return s.reported[key] != outcome.Status
}

// Desired returns what the registry should say.
func (s *State) Desired() reconcile.Desired {
	s.mu.Lock()
	defer s.mu.Unlock()
	desired := reconcile.Desired{Node: s.node, Complete: s.complete}
	for _, d := range s.definitions {
		desired.Instances = append(desired.Instances, s.instance(d))
	}
	return desired
}

func (s *State) instance(d *servicedef.Definition) reconcile.Instance {
	meta := map[string]string{reconcile.MarkKey: reconcile.MarkValue}
	maps.Copy(meta, d.Meta)
	meta[reconcile.MarkKey] = reconcile.MarkValue
	instance := reconcile.Instance{Service: &registryv1.Service{
		Id: d.ID, Name: d.Name, Node: s.node.GetName(), Address: cmp.Or(d.Address, s.node.GetAddress()),
		Port: uint32(d.Port), Tags: slices.Clone(d.Tags), Meta: meta,
	}}
	for _, c := range d.Checks {
		outcome := s.outcomes[CheckKey{Service: d.ID, Check: c.ID}]
		instance.Checks = append(instance.Checks, &registryv1.Check{
			Id: c.ID, Name: cmp.Or(c.Name, c.ID), ServiceId: d.ID, Status: outcome.Status, Output: outcome.Output,
		})
	}
	return instance
}

// Synced notes that the registry has these instances with the statuses they carry.
func (s *State) Synced(instances ...reconcile.Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range instances {
		s.synced[i.Service.GetId()] = true
		for _, c := range i.Checks {
			s.reported[CheckKey{Service: i.Service.GetId(), Check: c.GetId()}] = c.GetStatus()
		}
	}
}

// Unsynced notes that the registry lacks an instance, or has another in its place.
func (s *State) Unsynced(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.synced, id)
}

// Unreported returns the outcomes the registry does not know of, for the services it has, in order.
func (s *State) Unreported() []*registryv1.CheckUpdate {
	s.mu.Lock()
	defer s.mu.Unlock()
	var updates []*registryv1.CheckUpdate
	for key, outcome := range s.outcomes {
		if s.synced[key.Service] && s.reported[key] != outcome.Status {
			updates = append(updates, &registryv1.CheckUpdate{
				ServiceId: key.Service, CheckId: key.Check, Status: outcome.Status, Output: outcome.Output,
			})
		}
	}
	slices.SortFunc(updates, func(a, b *registryv1.CheckUpdate) int {
		return cmp.Or(strings.Compare(a.GetServiceId(), b.GetServiceId()), strings.Compare(a.GetCheckId(), b.GetCheckId()))
	})
	return updates
}

// Reported notes that the registry has these outcomes.
func (s *State) Reported(updates []*registryv1.CheckUpdate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range updates {
		s.reported[CheckKey{Service: u.GetServiceId(), Check: u.GetCheckId()}] = u.GetStatus()
	}
}

// Policies returns the failover policies the definitions give, by service name. Where two instances
// of a service say something else, the first by id counts.
func (s *State) Policies() map[string]*registryv1.FailoverPolicy {
	s.mu.Lock()
	defer s.mu.Unlock()
	policies := map[string]*registryv1.FailoverPolicy{}
	for _, d := range s.definitions {
		if len(d.Failover) == 0 || policies[d.Name] != nil {
			continue
		}
		policy := &registryv1.FailoverPolicy{Service: d.Name}
		for _, target := range d.Failover {
			policy.Failover = append(policy.Failover, &registryv1.FailoverTarget{Datacenter: target.Datacenter, Targets: target.Targets})
		}
		policies[d.Name] = policy
	}
	return policies
}

// Service is one of the node's services with what is known of it.
type Service struct {
	reconcile.Instance
	// Synced: the registry has the service and its outcomes as they are here.
	Synced bool
}

// Services returns the node's services, ordered by id.
func (s *State) Services() []Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	services := make([]Service, len(s.definitions))
	for i, d := range s.definitions {
		service := Service{Instance: s.instance(d), Synced: s.synced[d.ID]}
		for key, outcome := range s.outcomes {
			if key.Service == d.ID && s.reported[key] != outcome.Status {
				service.Synced = false
			}
		}
		services[i] = service
	}
	return services
}

// Node returns the node itself.
func (s *State) Node() *registryv1.Node { return s.node }
