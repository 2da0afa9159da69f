package catalog

import (
	"cmp"
	"maps"
	"slices"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Answer says what state an answer reflects and when it last changed.
type Answer struct {
	// Index is the state's index.
	Index uint64
	// Changed is when the answer last changed, as far as that is known.
	Changed uint64
}

// Query answers the instances of a service in the order of their ids.
func (v *View) Query(name string, passingOnly bool, tags []string) ([]*registryv1.ServiceInstance, Answer) {
	v.mu.Lock() // For sorted; held briefly.
	defer v.mu.Unlock()
	s := v.services[name]
	if s == nil {
		return nil, Answer{v.index, v.floor}
	}
	if s.sorted == nil {
		ids := slices.Sorted(maps.Keys(s.instances))
		s.sorted = make([]*instance, len(ids))
		for n, id := range ids {
			s.sorted[n] = s.instances[id]
		}
	}
	out := make([]*registryv1.ServiceInstance, 0, len(s.sorted))
	for _, i := range s.sorted {
		if passingOnly && i.answer.GetStatus() != registryv1.HealthStatus_HEALTH_STATUS_PASSING || !carries(i.service, tags) {
			continue
		}
		out = append(out, i.answer)
	}
	return out, Answer{v.index, max(v.floor, s.changed)}
}

func carries(s *registryv1.Service, tags []string) bool {
	for _, tag := range tags {
		if !slices.Contains(s.GetTags(), tag) {
			return false
		}
	}
	return true
}

// Services answers the names in the catalogue, in order, with counts and the union of the tags.
func (v *View) Services() ([]*registryv1.ServiceSummary, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var out []*registryv1.ServiceSummary
	for name, s := range v.services {
		if len(s.instances) == 0 {
			continue
		}
		summary := &registryv1.ServiceSummary{Name: name, Instances: uint32(len(s.instances))} //nolint:gosec // a count of instances in memory
		tags := map[string]bool{}
		for _, i := range s.instances {
			if i.answer.GetStatus() == registryv1.HealthStatus_HEALTH_STATUS_PASSING {
				summary.Passing++
			}
			for _, tag := range i.service.GetTags() {
				tags[tag] = true
			}
		}
		summary.Tags = slices.Sorted(maps.Keys(tags))
		out = append(out, summary)
	}
	slices.SortFunc(out, func(a, b *registryv1.ServiceSummary) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out, Answer{v.index, max(v.floor, v.listAt)}
}

// Nodes answers the nodes in the catalogue, in order.
func (v *View) Nodes() ([]*registryv1.Node, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var out []*registryv1.Node
	for _, n := range v.nodes {
		if n.value != nil {
			out = append(out, n.value)
		}
	}
	slices.SortFunc(out, func(a, b *registryv1.Node) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out, Answer{v.index, max(v.floor, v.nodesAt)}
}
