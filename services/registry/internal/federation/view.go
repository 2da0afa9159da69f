package federation

import (
	"slices"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// View keeps the federation record, and how far its sources are copied, in memory.
type View struct {
	own     Own
	tables  record.Catalogue
	current atomic.Pointer[federationv1.Federation]
	cursors atomic.Pointer[map[string]*federationv1.ReplicationCursor]
}

// NewView returns a view that knows only what the configuration says.
func NewView(own Own) *View {
	v := &View{own: own, tables: record.Tables()}
	v.cursors.Store(&map[string]*federationv1.ReplicationCursor{})
	return v
}

// Load reads the record anew.
func (v *View) Load(r record.Reader) error {
	f, err := Read(r)
	if err != nil {
		return err
	}
	v.current.Store(f)
	return v.loadCursors(r)
}

// Concerns reports whether committed rows change what the view shows.
func (v *View) Concerns(rows []*registryv1.Record) bool {
	return slices.ContainsFunc(rows, func(r *registryv1.Record) bool {
		return r.GetTable() == registryv1.Table_TABLE_FEDERATION || r.GetTable() == registryv1.Table_TABLE_DATACENTER
	})
}

// Federation returns the record, nil before it is founded. It must not be changed.
func (v *View) Federation() *federationv1.Federation { return v.current.Load() }

// Own is what the datacenter knows of itself.
func (v *View) Own() Own { return v.own }

// Datacenter is the own datacenter's name.
func (v *View) Datacenter() string { return v.own.Datacenter }

// FederationID is the federation's id, from the own certificate.
func (v *View) FederationID() string { return v.own.FederationID }

// Primary is the datacenter that takes global writes, as far as this one knows.
func (v *View) Primary() string {
	if f := v.current.Load(); f != nil {
		return f.GetPrimaryDatacenter()
	}
	return v.own.PrimaryDatacenter
}

// IsPrimary reports whether the own datacenter takes global writes.
func (v *View) IsPrimary() bool { return v.Primary() == v.own.Datacenter }

// Epoch is the epoch this datacenter has learnt of; 0 before the record is founded.
func (v *View) Epoch() uint64 { return v.current.Load().GetEpoch() }

// Known returns the names of the datacenters a request may name: the members, the primary and the
// own.
func (v *View) Known() []string {
	names := []string{v.own.Datacenter, v.Primary()}
	for _, m := range v.current.Load().GetMembers() {
		names = append(names, m.GetName())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Snapshot returns a copy of the record that says who answers, nil before it is founded.
func (v *View) Snapshot() *federationv1.Federation {
	f := proto.CloneOf(v.current.Load())
	if f != nil {
		f.Datacenter = v.own.Datacenter
	}
	return f
}
