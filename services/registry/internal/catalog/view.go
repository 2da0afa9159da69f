package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Tables lists the tables the catalogue is made of.
func Tables() []registryv1.Table {
	return []registryv1.Table{registryv1.Table_TABLE_NODE, registryv1.Table_TABLE_SERVICE, registryv1.Table_TABLE_CHECK}
}

// View is the catalogue in memory.
type View struct {
	datacenter string

	mu    sync.RWMutex
	index uint64
	// floor is when the view was loaded: what changed before is not known apart.
	floor     uint64
	nodes     map[string]*node
	nodesAt   uint64
	instances map[string]*instance
	services  map[string]*service
	listAt    uint64
}

type node struct {
	value     *registryv1.Node
	instances map[string]*instance
}

type instance struct {
	service *registryv1.Service // nil while only checks are known
	checks  map[string]*registryv1.Check
	// answer is what queries send; it is replaced, never changed.
	answer *registryv1.ServiceInstance
}

type service struct {
	instances map[string]*instance
	changed   uint64
	// sorted is instances by id; nil when it has to be made anew.
	sorted []*instance
}

// NewView answers an empty catalogue of a datacenter.
func NewView(datacenter string) *View {
	v := &View{datacenter: datacenter}
	v.clear()
	return v
}

func (v *View) clear() {
	v.nodes, v.instances, v.services = map[string]*node{}, map[string]*instance{}, map[string]*service{}
}

// Load replaces the view by what is stored.
func (v *View) Load(r record.Reader) error {
	var rows []*registryv1.Record
	for _, table := range Tables() {
		err := r.Scan(table, record.ScanOptions{}, func(row *registryv1.Record) bool {
			rows = append(rows, row)
			return true
		})
		if err != nil {
			return fmt.Errorf("load the catalogue: %w", err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	v.index, v.floor, v.nodesAt, v.listAt = r.Index(), r.Index(), r.Index(), r.Index()
	return v.apply(rows)
}

// Apply takes in the rows a batch wrote, in commit order, up to and including index.
func (v *View) Apply(index uint64, rows []*registryv1.Record) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.index = max(v.index, index)
	return v.apply(rows)
}

func (v *View) apply(rows []*registryv1.Record) error {
	for _, row := range rows {
		var err error
		switch row.GetTable() {
		case registryv1.Table_TABLE_NODE:
			err = v.applyNode(row)
		case registryv1.Table_TABLE_SERVICE:
			err = v.applyService(row)
		case registryv1.Table_TABLE_CHECK:
			err = v.applyCheck(row)
		}
		if err != nil {
			return fmt.Errorf("take %s row into the catalogue: %w", row.GetTable(), err)
		}
	}
	return nil
}

func (v *View) applyNode(row *registryv1.Record) error {
	n := v.node(row.GetKey())
	n.value = nil
	if !row.GetDeleted() {
		n.value = &registryv1.Node{}
		if err := proto.Unmarshal(row.GetValue(), n.value); err != nil {
			return err
		}
		n.value.CreateIndex, n.value.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
	}
	v.nodesAt = max(v.nodesAt, row.GetModifyIndex())
	for _, i := range n.instances {
		v.touch(i, row.GetModifyIndex())
	}
	return nil
}

func (v *View) node(name string) *node {
	n := v.nodes[name]
	if n == nil {
		n = &node{instances: map[string]*instance{}}
		v.nodes[name] = n
	}
	return n
}

func (v *View) applyService(row *registryv1.Record) error {
	id := row.GetKey()
	i := v.instance(id)
	if old := i.service; old != nil {
		delete(v.node(old.GetNode()).instances, id)
		s := v.services[old.GetName()]
		delete(s.instances, id)
		s.sorted, s.changed = nil, max(s.changed, row.GetModifyIndex())
	}
	v.listAt = max(v.listAt, row.GetModifyIndex())
	i.service = nil
	if row.GetDeleted() {
		v.forget(id, i)
		return nil
	}
	i.service = &registryv1.Service{}
	if err := proto.Unmarshal(row.GetValue(), i.service); err != nil {
		return err
	}
	i.service.CreateIndex, i.service.ModifyIndex = row.GetCreateIndex(), row.GetModifyIndex()
	v.node(i.service.GetNode()).instances[id] = i
	s := v.services[i.service.GetName()]
	if s == nil {
		s = &service{instances: map[string]*instance{}}
		v.services[i.service.GetName()] = s
	}
	s.instances[id], s.sorted = i, nil
	v.touch(i, row.GetModifyIndex())
	return nil
}

func (v *View) instance(id string) *instance {
	i := v.instances[id]
	if i == nil {
		i = &instance{checks: map[string]*registryv1.Check{}}
		v.instances[id] = i
	}
	return i
}

func (v *View) applyCheck(row *registryv1.Record) error {
	id, check, _ := strings.Cut(row.GetKey(), "/")
	i := v.instance(id)
	delete(i.checks, check)
	if !row.GetDeleted() {
		c := &registryv1.Check{}
		if err := proto.Unmarshal(row.GetValue(), c); err != nil {
			return err
		}
		c.ModifyIndex = row.GetModifyIndex()
		i.checks[check] = c
	}
	v.touch(i, row.GetModifyIndex())
	v.forget(id, i)
	return nil
}

// forget drops an instance of which nothing is left.
func (v *View) forget(id string, i *instance) {
	if i.service == nil && len(i.checks) == 0 {
		delete(v.instances, id)
	}
}

// touch makes an instance's answer anew and marks its service as changed.
func (v *View) touch(i *instance, index uint64) {
	if i.service == nil {
		return
	}
	s := v.services[i.service.GetName()]
	s.changed = max(s.changed, index)
	v.listAt = max(v.listAt, index)
	n := v.node(i.service.GetNode()).value
	if n == nil {
		n = &registryv1.Node{Name: i.service.GetNode()}
	}
	answer := &registryv1.ServiceInstance{
		Node: n, Service: i.service, Datacenter: v.datacenter,
		Status: registryv1.HealthStatus_HEALTH_STATUS_PASSING,
		Checks: slices.SortedFunc(maps.Values(i.checks), func(a, b *registryv1.Check) int { return cmp.Compare(a.GetId(), b.GetId()) }),
	}
	if i.service.GetAddress() == "" {
		answer.Service = proto.CloneOf(i.service)
		answer.Service.Address = n.GetAddress()
	}
	for _, c := range answer.GetChecks() {
		answer.Status = max(answer.GetStatus(), c.GetStatus())
	}
	i.answer = answer
}
