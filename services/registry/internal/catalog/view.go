package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

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
	fields     headFields
	deadlines  Deadlines
	times      Times
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
	changed []*service
}

// node is a node's row with what belongs to it.
type node struct {
	name string
	// exists says that there is a row; raw is its value.
	exists            bool
	raw               []byte
	created, modified uint64
	address           string
	// ttl is nil unless heartbeats are expected.
	ttl       *durationpb.Duration
	implicit  bool
	checks    []*check
	status    registryv1.HealthStatus
	instances []*instance
	// idles says that there is a deadline for it to be reaped as empty.
	idles bool
	// changed is when the node, its checks or its instances last changed.
	changed uint64
	// decoded is made for whoever selects, and dropped when the row changes.
	decoded atomic.Pointer[registryv1.Node]
}

// instance is a service's row with its checks.
type instance struct {
	id string
	// service and node are nil while only checks are known; raw is the row's value.
	service           *service
	node              *node
	raw               []byte
	created, modified uint64
	checks            []*check
	// status is what the checks and the node's amount to.
	status registryv1.HealthStatus
	// address, port and owner are the row's: planning a registration asks for them. An empty
	// address is the node's.
	address, owner string
	port           uint32
	// decoded is made for whoever selects, and dropped when anything of it changes; it is never
	// changed.
	decoded atomic.Pointer[registryv1.ServiceInstance]
}

type service struct {
	name      string
	instances []*instance
	changed   uint64
	// marked says that it is among the view's changed ones.
	marked bool

	// mu guards what readers make while they hold the view's lock for reading; writers hold that
	// alone.
	mu      sync.Mutex
	encoded [2]encoding
	summary *registryv1.ServiceSummary
}

// Option shapes a view.
type Option func(*View)

// WithDeadlines tells d what deadlines follow from the catalogue, now and as they change: those of
// TTL checks, of nodes that must send heartbeats, and of dead and of empty nodes, which are reaped
// after a while.
func WithDeadlines(d Deadlines, times Times, now func() time.Time) Option {
	return func(v *View) { v.deadlines, v.times, v.now = d, times, now }
}

// NewView returns an empty catalogue of a datacenter.
func NewView(datacenter string, options ...Option) *View {
	v := &View{
		datacenter: datacenter, fields: newHeadFields(), deadlines: noDeadlines{}, now: func() time.Time { return time.Time{} },
	}
	for _, option := range options {
		option(v)
	}
	v.clear()
	return v
}

func (v *View) clear() {
	v.nodes, v.instances, v.services = map[string]*node{}, map[string]*instance{}, map[string]*service{}
	v.changed = nil
}

// Load replaces the view by what is stored. It refuses rows that cannot be decoded; Apply takes
// those of services as they come, for a server of this datacenter has encoded them.
func (v *View) Load(r record.Reader) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	v.index, v.floor, v.nodesAt, v.listAt = r.Index(), r.Index(), r.Index(), r.Index()
	for _, table := range Tables() {
		err := record.Each(r, table, record.ScanOptions{}, func(row *registryv1.Record) error {
			if err := v.take(row); err != nil || table != registryv1.Table_TABLE_SERVICE {
				return err
			}
			return record.Decode(row, &registryv1.Service{})
		})
		if err != nil {
			return fmt.Errorf("load the catalogue: %w", err)
		}
	}
	v.names()
	v.deadlines.Reset(v.dueLocked())
	return nil
}

// Apply takes in the rows a batch wrote, in commit order, up to and including index. It returns the
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
	return v.names(), nil
}

// names returns the services that changed, which begin anew.
func (v *View) names() []string {
	var names []string
	for _, s := range v.changed {
		s.marked = false
		names = append(names, s.name)
	}
	clear(v.changed)
	v.changed = v.changed[:0]
	return names
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
	n.exists, n.raw, n.created, n.modified, n.address, n.ttl, n.implicit = false, nil, 0, 0, "", nil, false
	n.decoded.Store(nil)
	if !row.GetDeleted() {
		n.exists, n.raw, n.created, n.modified = true, row.GetValue(), row.GetCreateIndex(), row.GetModifyIndex()
		value := &registryv1.Node{}
		if err := proto.Unmarshal(n.raw, value); err != nil {
			return err
		}
		n.address, n.ttl, n.implicit = value.GetAddress(), value.GetLivenessTtl(), value.GetImplicit()
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
	if !n.exists && len(n.instances) == 0 && len(n.checks) == 0 {
		delete(v.nodes, n.name)
	}
}

// touchNode says that the answers of a node's instances changed.
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
	v.listAt = max(v.listAt, index)
	if row.GetDeleted() {
		v.detach(i, index)
		v.forget(i)
		return nil
	}
	h, err := v.fields.read(row.GetValue())
	if err != nil {
		return err
	}
	if i.service == nil || i.service.name != string(h.name) || i.node.name != string(h.node) {
		v.detach(i, index)
		v.attach(i, string(h.name), string(h.node))
	}
	i.raw, i.created, i.modified, i.port = row.GetValue(), row.GetCreateIndex(), index, h.port
	if i.address != string(h.address) {
		i.address = string(h.address)
	}
	if i.owner != string(h.owner) {
		i.owner = string(h.owner)
	}
	v.touch(i, index)
	return nil
}

// attach puts an instance into its service and its node.
func (v *View) attach(i *instance, name, node string) {
	i.node = v.node(node)
	i.node.instances = insert(i.node.instances, i)
	v.watchEmpty(i.node)
	i.service = v.services[name]
	if i.service == nil {
		i.service = &service{name: name}
		v.services[name] = i.service
	}
	i.service.instances = insert(i.service.instances, i)
}

// detach takes an instance out of its service and its node, if it is in any.
func (v *View) detach(i *instance, index uint64) {
	if i.service == nil {
		return
	}
	n, s := i.node, i.service
	i.node, i.service, i.raw = nil, nil, nil
	i.decoded.Store(nil)
	n.instances, n.changed = remove(n.instances, i.id), max(n.changed, index)
	v.watchEmpty(n)
	v.forgetNode(n)
	s.instances = remove(s.instances, i.id)
	v.mark(s, index)
}

// mark says that a service's answer changed.
func (v *View) mark(s *service, index uint64) {
	s.changed = max(s.changed, index)
	if s.marked {
		return
	}
	s.encoded, s.summary, s.marked = [2]encoding{}, nil, true
	v.changed = append(v.changed, s)
}

func (v *View) instance(id string) *instance {
	i := v.instances[id]
	if i == nil {
		i = &instance{id: strings.Clone(id)}
		v.instances[i.id] = i
	}
	return i
}

func (v *View) takeCheck(row *registryv1.Record) error {
	owner := ownerOf(row.GetKey())
	var fresh *check
	if !row.GetDeleted() {
		var err error
		if fresh, err = newCheck(owner.check, row); err != nil {
			return err
		}
	}
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
	i.checks = replaceCheck(i.checks, owner.check, fresh)
	v.touch(i, row.GetModifyIndex())
	v.forget(i)
	return nil
}

// forget drops an instance of which nothing is left.
func (v *View) forget(i *instance) {
	if i.service == nil && len(i.checks) == 0 {
		delete(v.instances, i.id)
	}
}

// touch says that an instance's answer changed, and with it its service's.
func (v *View) touch(i *instance, index uint64) {
	if i.service == nil {
		return
	}
	v.listAt = max(v.listAt, index)
	v.mark(i.service, index)
	i.node.changed = max(i.node.changed, index)
	i.status = max(i.node.status, worst(i.checks))
	i.decoded.Store(nil)
}

// value returns a node's row as callers get it, nil when there is none. With keep it is decoded
// once.
func (n *node) value(keep bool) *registryv1.Node {
	if !n.exists {
		return nil
	}
	if made := n.decoded.Load(); made != nil {
		return made
	}
	out := &registryv1.Node{}
	decode(n.raw, out)
	out.CreateIndex, out.ModifyIndex = n.created, n.modified
	if keep {
		n.decoded.Store(out)
	}
	return out
}

// answer is what queries send, nil while there is no row. With keep it is decoded once: whoever
// selects among instances does it again and again, whoever asks for one instance may never come
// back. Nobody changes what is returned.
func (v *View) answer(i *instance, keep bool) *registryv1.ServiceInstance {
	if i.service == nil {
		return nil
	}
	if made := i.decoded.Load(); made != nil {
		return made
	}
	own := &registryv1.Service{}
	decode(i.raw, own)
	own.Name, own.Node, own.CreateIndex, own.ModifyIndex = i.service.name, i.node.name, i.created, i.modified
	if i.address == "" {
		own.Address = i.node.address
	}
	value := i.node.value(keep)
	if value == nil {
		value = &registryv1.Node{Name: i.node.name}
	}
	out := &registryv1.ServiceInstance{
		Node: value, Service: own, Checks: values(i.checks), NodeChecks: values(i.node.checks), Datacenter: v.datacenter, Status: i.status,
		Unchecked: i.unchecked(),
	}
	if keep {
		i.decoded.Store(out)
	}
	return out
}

// unchecked reports whether nobody watches over the instance.
func (i *instance) unchecked() bool { return len(i.checks)+len(i.node.checks) == 0 }

// worst returns what checks amount to.
func worst(checks []*check) registryv1.HealthStatus {
	status := passing
	for _, c := range checks {
		status = max(status, c.status)
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

// replaceCheck returns checks with one put in its place, or taken out. The old list may be in use.
func replaceCheck(old []*check, id string, fresh *check) []*check {
	out := make([]*check, 0, len(old)+1)
	for _, c := range old {
		if c.id != id {
			out = append(out, c)
		}
	}
	if fresh != nil {
		at, _ := slices.BinarySearchFunc(out, id, func(c *check, id string) int { return cmp.Compare(c.id, id) })
		out = slices.Insert(out, at, fresh)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
