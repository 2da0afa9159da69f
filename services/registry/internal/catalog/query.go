package catalog

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Answer says what state an answer reflects and when it last changed.
type Answer struct {
	// Index is the state's index.
	Index uint64
	// Changed is when the answer last changed, as far as that is known.
	Changed uint64
}

// Changed returns when a service's answer last changed, whatever is selected of it.
func (v *View) Changed(name string) Answer {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.changedLocked(v.services[name])
}

// Index is the state's index.
func (v *View) Index() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.index
}

// ListChanged returns when anything in the catalogue last changed.
func (v *View) ListChanged() Answer {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return Answer{v.index, max(v.floor, v.listAt, v.nodesAt)}
}

// NodesChanged returns when a node or a node's own check last changed.
func (v *View) NodesChanged() Answer {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return Answer{v.index, max(v.floor, v.nodesAt)}
}

func (v *View) changedLocked(s *service) Answer {
	if s == nil {
		return Answer{v.index, v.floor}
	}
	return Answer{v.index, max(v.floor, s.changed)}
}

// Query returns the instances of a service that are selected, in the order of their ids.
func (v *View) Query(name string, selected Selection) ([]*registryv1.ServiceInstance, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := v.services[name]
	if s == nil {
		return nil, v.changedLocked(s)
	}
	return v.selected(s, selected, true), v.changedLocked(s)
}

// selected returns the instances of a service that are selected. With keep they are decoded once;
// see answer.
func (v *View) selected(s *service, selected Selection, keep bool) []*registryv1.ServiceInstance {
	out := make([]*registryv1.ServiceInstance, 0, len(s.instances))
	for _, i := range s.instances {
		if selected.PassingOnly && i.status != passing {
			continue
		}
		answer := v.answer(i, keep)
		if selected.matches(answer) {
			out = append(out, answer)
		}
	}
	return out
}

// encoding is a service's answer as it is sent.
type encoding struct {
	made  bool
	bytes []byte
}

// Encoded returns what Query returns of all or of the passing instances, as the encoded field
// QueryServiceResponse.instances. It is encoded once and kept until the answer changes; nobody may
// change it.
func (v *View) Encoded(name string, passingOnly bool) ([]byte, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := v.services[name]
	if s == nil {
		return nil, v.changedLocked(s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &s.encoded[0]
	if passingOnly {
		e = &s.encoded[1]
	}
	if !e.made {
		*e = encoding{made: true, bytes: v.encode(s, passingOnly)}
	}
	return e.bytes, v.changedLocked(s)
}

func (v *View) encode(s *service, passingOnly bool) []byte {
	instances := v.selected(s, Selection{PassingOnly: passingOnly}, false)
	data, err := proto.Marshal(&registryv1.QueryServiceResponse{Instances: instances})
	must(err)
	return data
}

// Services returns the names in the catalogue, in order, with counts and the union of the tags of
// the selected instances. A name without any is left out.
func (v *View) Services(selected Selection) ([]*registryv1.ServiceSummary, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]*registryv1.ServiceSummary, 0, len(v.services))
	for _, s := range v.services {
		if summary := v.summarize(s, selected); summary.GetInstances() > 0 {
			out = append(out, summary)
		}
	}
	slices.SortFunc(out, func(a, b *registryv1.ServiceSummary) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out, Answer{v.index, max(v.floor, v.listAt)}
}

// summarize counts; the summary of everything is kept until the service changes.
func (v *View) summarize(s *service, selected Selection) *registryv1.ServiceSummary {
	if !selected.all() {
		return summaryOf(s.name, v.selected(s, selected, true))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.summary == nil {
		s.summary = summaryOf(s.name, v.selected(s, selected, false))
	}
	return s.summary
}

func summaryOf(name string, instances []*registryv1.ServiceInstance) *registryv1.ServiceSummary {
	summary := &registryv1.ServiceSummary{Name: name, Instances: uint32(len(instances))} //nolint:gosec // a count of instances in memory
	tags := map[string]bool{}
	for _, i := range instances {
		if i.GetStatus() == passing {
			summary.Passing++
		}
		if i.GetUnchecked() {
			summary.Unchecked++
		}
		for _, tag := range i.GetService().GetTags() {
			tags[tag] = true
		}
	}
	summary.Tags = slices.Sorted(maps.Keys(tags))
	return summary
}

// Nodes returns the selected nodes, in order.
func (v *View) Nodes(selected NodeSelection) ([]*registryv1.Node, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]*registryv1.Node, 0, len(v.nodes))
	for _, n := range v.nodes {
		if !n.exists {
			continue
		}
		if value := n.value(false); selected.matches(NodeAnswer{Node: value, Checks: values(n.checks), Status: n.status}) {
			out = append(out, value)
		}
	}
	slices.SortFunc(out, func(a, b *registryv1.Node) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out, Answer{v.index, max(v.floor, v.nodesAt)}
}

// NodeAnswer is a node with what belongs to it.
type NodeAnswer struct {
	// Node is nil when there is no row of it; there may be instances all the same.
	Node      *registryv1.Node
	Checks    []*registryv1.Check
	Status    registryv1.HealthStatus
	Instances []*registryv1.ServiceInstance
}

// Node returns a node with its checks and instances.
func (v *View) Node(name string) (NodeAnswer, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n := v.nodes[name]
	if n == nil {
		// That it went away is a change of some node.
		return NodeAnswer{}, Answer{v.index, max(v.floor, v.nodesAt)}
	}
	out := NodeAnswer{Node: n.value(false), Checks: values(n.checks), Status: n.status, Instances: make([]*registryv1.ServiceInstance, len(n.instances))}
	for at, i := range n.instances {
		out.Instances[at] = v.answer(i, false)
	}
	return out, Answer{v.index, max(v.floor, n.changed)}
}

// Instance returns an instance by its id, nil when it is not there.
func (v *View) Instance(id string) (*registryv1.ServiceInstance, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i := v.instances[id]
	if i == nil || i.service == nil {
		return nil, Answer{v.index, max(v.floor, v.listAt)}
	}
	return v.answer(i, false), v.changedLocked(i.service)
}

// Indexes returns when an instance was made and last changed, zeros when it is not there.
func (v *View) Indexes(id string) (create, modify uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if i := v.instances[id]; i != nil && i.service != nil {
		create, modify = i.created, i.modified
	}
	return create, modify
}

// ServiceName returns the service an instance belongs to, false when the instance is not there.
func (v *View) ServiceName(id string) (string, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i := v.instances[id]
	if i == nil || i.service == nil {
		return "", false
	}
	return i.service.name, true
}

// NodeOf returns the node an instance is on, false when the instance is not there.
func (v *View) NodeOf(id string) (string, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	i := v.instances[id]
	if i == nil || i.node == nil {
		return "", false
	}
	return i.node.name, true
}

// ServicesOn returns the names of the services that have an instance on a node.
func (v *View) ServicesOn(node string) []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n := v.nodes[node]
	if n == nil {
		return nil
	}
	names := map[string]bool{}
	for _, i := range n.instances {
		names[i.service.name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Checks returns the selected checks: nodes' own by node first, then those of instances by service
// id.
func (v *View) Checks(selected CheckSelection) ([]*registryv1.CheckSummary, Answer) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var out []*registryv1.CheckSummary
	for _, name := range slices.Sorted(maps.Keys(v.nodes)) {
		for _, c := range values(v.nodes[name].checks) {
			if selected.matches(c, name, "") {
				out = append(out, &registryv1.CheckSummary{Check: c, Node: name})
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(v.instances)) {
		i := v.instances[id]
		var service, node string
		if i.service != nil {
			service, node = i.service.name, i.node.name
		}
		for _, c := range values(i.checks) {
			if selected.matches(c, node, service) {
				out = append(out, &registryv1.CheckSummary{Check: c, Node: node, Service: service})
			}
		}
	}
	return out, Answer{v.index, max(v.floor, v.listAt, v.nodesAt)}
}
