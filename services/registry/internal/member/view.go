package member

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// View is the servers and the autopilot's settings in memory.
type View struct {
	mu       sync.RWMutex
	servers  map[string]*registryv1.Member
	settings *registryv1.AutopilotConfig
	modified uint64
}

// NewView returns a view that knows no server, with default settings.
func NewView() *View {
	return &View{servers: map[string]*registryv1.Member{}, settings: DefaultAutopilot()}
}

// Load replaces the view by what is stored.
func (v *View) Load(r record.Reader) error {
	fresh := NewView()
	for _, table := range []registryv1.Table{registryv1.Table_TABLE_SERVER, registryv1.Table_TABLE_SETTING} {
		if err := record.Each(r, table, record.ScanOptions{}, fresh.apply); err != nil {
			return fmt.Errorf("load the members: %w", err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.servers, v.settings, v.modified = fresh.servers, fresh.settings, fresh.modified
	return nil
}

// Apply takes in committed rows; those of other tables are ignored.
func (v *View) Apply(rows []*registryv1.Record) error {
	for _, row := range rows {
		if row.GetTable() != registryv1.Table_TABLE_SERVER && row.GetTable() != registryv1.Table_TABLE_SETTING {
			continue
		}
		v.mu.Lock()
		err := v.apply(row)
		v.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *View) apply(row *registryv1.Record) error {
	switch {
	case row.GetTable() == registryv1.Table_TABLE_SERVER && row.GetDeleted():
		delete(v.servers, row.GetKey())
	case row.GetTable() == registryv1.Table_TABLE_SERVER:
		m := &registryv1.Member{}
		if err := record.Decode(row, m); err != nil {
			return err
		}
		v.servers[row.GetKey()] = m
	case row.GetKey() == autopilotKey:
		stored := &registryv1.AutopilotConfig{}
		if err := record.Decode(row, stored); err != nil {
			return err
		}
		v.settings, v.modified = merge(DefaultAutopilot(), stored), record.ModifyIndex(row)
	}
	return nil
}

// Server returns a server's row, removed ones included; nil when there is none.
func (v *View) Server(id string) *registryv1.Member {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.servers[id]
}

// Servers returns every row in the order of ids, removed ones included.
func (v *View) Servers() []*registryv1.Member {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]*registryv1.Member, 0, len(v.servers))
	for _, m := range v.servers {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *registryv1.Member) int { return strings.Compare(a.GetId(), b.GetId()) })
	return out
}

// Address returns where a server serves gRPC; false when it never said so.
func (v *View) Address(id string) (string, bool) {
	m := v.Server(id)
	return m.GetAddress(), m.GetAddress() != ""
}

// Autopilot returns the settings in force and the index of their last change, 0 for the defaults.
func (v *View) Autopilot() (*registryv1.AutopilotConfig, uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.settings, v.modified
}
