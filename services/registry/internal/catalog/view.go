package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

// Tables lists the tables the catalogue is made of.
func Tables() []registryv1.Table {
	return []registryv1.Table{registryv1.Table_TABLE_NODE, registryv1.Table_TABLE_SERVICE, registryv1.Table_TABLE_CHECK}
}

// View is the catalogue in memory.
type View struct {
	datacenter string
	deadlines  Deadlines
	reapAfter  time.Duration
	now        func() time.Time

	mu    sync.RWMutex
	index uint64
	// floor is when the view was loaded: what changed before is not known apart.
	floor     uint64
	nodes     map[string]*node
	nodesAt   uint64
	instances map[string]*instance
	services  map[string]*service
	listAt    uint64
	// changed collects the services whose answers change in the batch that is being taken in.
	changed map[string]struct{}
}

// node is a node row with what belongs to it; value is nil while there is no row.
type node struct {
	name      string
	value     *registryv1.Node
	checks    []*registryv1.Check
	status    registryv1.HealthStatus
	instances []*instance
	// changed is when the node, its checks or its instances last changed.
	changed uint64
}

type instance struct {
	id string
	// answer is what queries send; it is replaced, never changed. Its service is nil while only checks are known.
	answer *registryv1.ServiceInstance
	// inherits says that the address is the node's.
	inherits bool
}

func (i *instance) service() *registryv1.Service { return i.answer.GetService() }

type service struct {
	name      string
	instances []*instance
	changed   uint64

	// mu guards what readers make while they hold the view's lock for reading; writers hold that alone.
	mu      sync.Mutex
	encoded [2]encoding
	summary *registryv1.ServiceSummary
}

// Option shapes a view.
type Option func(*View)

// WithDeadlines tells d what deadlines follow from the catalogue, now and as they change: those of TTL
// checks, of nodes that must send heartbeats, and of dead nodes, which are reaped after a while.
func WithDeadlines(d Deadlines, reapAfter time.Duration, now func() time.Time) Option {
	return func(v *View) { v.deadlines, v.reapAfter, v.now = d, reapAfter, now }
}

// NewView answers an empty catalogue of a datacenter.
func NewView(datacenter string, options ...Option) *View {
	v := &View{datacenter: datacenter, deadlines: noDeadlines{}, now: func() time.Time { return time.Time{} }}
	for _, option := range options {
		option(v)
	}
	v.clear()
	return v
}

func (v *View) clear() {
	v.nodes, v.instances, v.services = map[string]*node{}, map[string]*instance{}, map[string]*service{}
	v.changed = map[string]struct{}{}
}

// Load replaces the view by what is stored.
func (v *View) Load(r record.Reader) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	v.index, v.floor, v.nodesAt, v.listAt = r.Index(), r.Index(), r.Index(), r.Index()
	for _, table := range Tables() {
		var failure error
		err := r.Scan(table, record.ScanOptions{}, func(row *registryv1.Record) bool {
			failure = v.take(row)
			return failure == nil
		})
		if err = cmp.Or(err, failure); err != nil {
			return fmt.Errorf("load the catalogue: %w", err)
		}
	}
	v.changed = map[string]struct{}{}
	v.deadlines.Reset(v.dueLocked())
	return nil
}

// Apply takes in the rows a batch wrote, in commit order, up to and including index. It answers the
// names of the services whose answers changed.
func (v *View) Apply(index uint64, rows []*registryv1.Record) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.index = max(v.index, index)
	for _, row := range rows {
		if err := v.take(row); err != nil {
			return nil, err
		}
	}
	if len(v.changed) == 0 {
		return nil, nil
	}
	changed := make([]string, 0, len(v.changed))
	for name := range v.changed {
		changed = append(changed, name)
	}
	clear(v.changed)
	return changed, nil
}

func (v *View) take(row *registryv1.Record) error {
	var err error
	switch row.GetTable() {
	case registryv1.Table_TABLE_NODE:
		err = v.takeNode(row)
	case registryv1.Table_TABLE_SERVICE:
		err = v.takeService(row)
	case registryv1.Table_TABLE_CHECK:
		err = v.takeCheck(row)
	}
	if err != nil {
		return fmt.Errorf("take %s row into the catalogue: %w", row.GetTable(), err)
	}
	return nil
}

func (v *View) takeNode(row *registryv1.Record) error {
	n := v.node(row.GetKey())
	n.value = nil
	if !row.GetDeleted() {
		n.value = &registryv1.Node{}
		if err := proto.Unmarshal(row.GetValue(), n.value); err != nil {
			return err
		}
		n.value.CreateIndex, n.value.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
	}
	v.touchNode(n, row.GetModifyIndex())
	v.watchNode(n)
	v.forgetNode(n)
	return nil
}

func (v *View) node(name string) *node {
	n := v.nodes[name]
	if n == nil {
		name = strings.Clone(name)
		n = &node{name: name, status: passing}
		v.nodes[name] = n
	}
	return n
}

// forgetNode drops a node of which nothing is left.
func (v *View) forgetNode(n *node) {
	if n.value == nil && len(n.instances) == 0 && len(n.checks) == 0 {
		delete(v.nodes, n.name)
	}
}

// touchNode makes the answers of a node's instances anew.
func (v *View) touchNode(n *node, index uint64) {
	n.changed = max(n.changed, index)
	v.nodesAt = max(v.nodesAt, index)
	for _, i := range n.instances {
		v.touch(i, index)
	}
}

func (v *View) takeService(row *registryv1.Record) error {
	i := v.instance(row.GetKey())
	index := row.GetModifyIndex()
	var fresh *registryv1.Service
	if !row.GetDeleted() {
		fresh = &registryv1.Service{}
		if err := proto.Unmarshal(row.GetValue(), fresh); err != nil {
			return err
		}
		fresh.CreateIndex, fresh.ModifyIndex = row.GetCreateIndex(), index
	}
	old := i.service()
	stays := old != nil && fresh != nil && old.GetName() == fresh.GetName() && old.GetNode() == fresh.GetNode()
	if old != nil && !stays {
		v.detach(i, old, index)
	}
	v.listAt = max(v.listAt, index)
	i.answer = &registryv1.ServiceInstance{Service: fresh, Checks: i.answer.GetChecks()}
	if fresh == nil {
		v.forget(i)
		return nil
	}
	i.inherits = fresh.GetAddress() == ""
	if stays {
		fresh.Name, fresh.Node = old.GetName(), old.GetNode() // One string for all of them.
	} else {
		v.attach(i, fresh)
	}
	v.services[fresh.GetName()].share(i)
	v.touch(i, index)
	return nil
}

// attach puts an instance into its service and its node.
func (v *View) attach(i *instance, fresh *registryv1.Service) {
	n := v.node(fresh.GetNode())
	n.instances = insert(n.instances, i)
	s := v.services[fresh.GetName()]
	if s == nil {
		s = &service{name: fresh.GetName()}
		v.services[s.name] = s
	}
	s.instances = insert(s.instances, i)
	fresh.Name, fresh.Node = s.name, n.name
}

// share lets an instance hold the tags and meta of the one before it when they are equal, as those of one
// service mostly are: maps are what an instance costs most. Nobody changes what is answered.
func (s *service) share(i *instance) {
	at, _ := slices.BinarySearchFunc(s.instances, i.id, byID)
	if at == 0 {
		return
	}
	fresh, before := i.service(), s.instances[at-1].service()
	if slices.Equal(fresh.GetTags(), before.GetTags()) {
		fresh.Tags = before.GetTags()
	}
	if maps.Equal(fresh.GetMeta(), before.GetMeta()) {
		fresh.Meta = before.GetMeta()
	}
}

// detach takes an instance out of its service and its node.
func (v *View) detach(i *instance, old *registryv1.Service, index uint64) {
	n := v.node(old.GetNode())
	n.instances, n.changed = remove(n.instances, i.id), max(n.changed, index)
	v.forgetNode(n)
	s := v.services[old.GetName()]
	s.instances = remove(s.instances, i.id)
	v.mark(s, index)
}

// mark says that a service's answer changed.
func (v *View) mark(s *service, index uint64) {
	s.changed = max(s.changed, index)
	s.encoded, s.summary = [2]encoding{}, nil
	v.changed[s.name] = struct{}{}
}

func (v *View) instance(id string) *instance {
	i := v.instances[id]
	if i == nil {
		i = &instance{id: strings.Clone(id), answer: &registryv1.ServiceInstance{}}
		v.instances[i.id] = i
	}
	return i
}

func (v *View) takeCheck(row *registryv1.Record) error {
	var fresh *registryv1.Check
	if !row.GetDeleted() {
		fresh = &registryv1.Check{}
		if err := proto.Unmarshal(row.GetValue(), fresh); err != nil {
			return err
		}
		fresh.ModifyIndex = row.GetModifyIndex()
	}
	owner := ownerOf(row.GetKey())
	v.watchCheck(row.GetKey(), fresh)
	if owner.node != "" {
		n := v.node(owner.node)
		n.checks = replaceCheck(n.checks, owner.check, fresh)
		n.status = worst(n.checks)
		v.touchNode(n, row.GetModifyIndex())
		v.watchNode(n)
		v.forgetNode(n)
		return nil
	}
	i := v.instance(owner.service)
	i.answer = &registryv1.ServiceInstance{Service: i.service(), Checks: replaceCheck(i.answer.GetChecks(), owner.check, fresh)}
	v.touch(i, row.GetModifyIndex())
	v.forget(i)
	return nil
}

// forget drops an instance of which nothing is left.
func (v *View) forget(i *instance) {
	if i.service() == nil && len(i.answer.GetChecks()) == 0 {
		delete(v.instances, i.id)
	}
}

// touch makes an instance's answer anew and marks its service as changed.
func (v *View) touch(i *instance, index uint64) {
	own := i.service()
	if own == nil {
		return
	}
	v.listAt = max(v.listAt, index)
	v.mark(v.services[own.GetName()], index)
	n := v.node(own.GetNode())
	n.changed = max(n.changed, index)
	value := n.value
	if value == nil {
		value = &registryv1.Node{Name: n.name}
	}
	if i.inherits && own.GetAddress() != value.GetAddress() {
		own = at(own, value.GetAddress())
	}
	checks := i.answer.GetChecks()
	i.answer = &registryv1.ServiceInstance{
		Node: value, Service: own, Checks: checks, NodeChecks: n.checks, Datacenter: v.datacenter, Status: max(n.status, worst(checks)),
	}
}

// at answers a service with another address. The rest is shared, not copied.
func at(s *registryv1.Service, address string) *registryv1.Service {
	out := &registryv1.Service{
		Id: s.GetId(), Name: s.GetName(), Node: s.GetNode(), Address: address, Port: s.GetPort(), Tags: s.GetTags(), Meta: s.GetMeta(),
		CreateIndex: s.GetCreateIndex(), ModifyIndex: s.GetModifyIndex(), Weights: s.GetWeights(),
	}
	out.ProtoReflect().SetUnknown(s.ProtoReflect().GetUnknown())
	return out
}

// worst answers what checks amount to.
func worst(checks []*registryv1.Check) registryv1.HealthStatus {
	status := passing
	for _, c := range checks {
		status = max(status, c.GetStatus())
	}
	return status
}

func byID(i *instance, id string) int { return cmp.Compare(i.id, id) }

func insert(list []*instance, i *instance) []*instance {
	at, found := slices.BinarySearchFunc(list, i.id, byID)
	if found {
		list[at] = i
		return list
	}
	return slices.Insert(list, at, i)
}

func remove(list []*instance, id string) []*instance {
	if at, found := slices.BinarySearchFunc(list, id, byID); found {
		return slices.Delete(list, at, at+1)
	}
	return list
}

// replaceCheck answers checks with one put in its place, or taken out. The old list may be in use.
func replaceCheck(old []*registryv1.Check, id string, fresh *registryv1.Check) []*registryv1.Check {
	out := make([]*registryv1.Check, 0, len(old)+1)
	for _, c := range old {
		if c.GetId() != id {
			out = append(out, c)
		}
	}
	if fresh != nil {
		at, _ := slices.BinarySearchFunc(out, id, func(c *registryv1.Check, id string) int { return cmp.Compare(c.GetId(), id) })
		out = slices.Insert(out, at, fresh)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
