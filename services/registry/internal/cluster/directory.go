package cluster

import (
	"sync"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/member"
)

// Directory knows where the datacenter's servers serve gRPC: as they recorded it, or else as they said
// when they were met, or else as this server was configured.
type Directory struct {
	rows *member.View

	mu  sync.Mutex
	met map[string]string
}

// NewDirectory answers a directory over the stored rows; configured maps ids to gRPC addresses.
func NewDirectory(rows *member.View, configured map[string]string) *Directory {
	d := &Directory{rows: rows, met: map[string]string{}}
	for id, address := range configured {
		d.met[id] = address
	}
	return d
}

// Address answers where a server serves gRPC.
func (d *Directory) Address(id string) (string, bool) {
	if address, ok := d.rows.Address(id); ok {
		return address, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	address, ok := d.met[id]
	return address, ok
}

func (d *Directory) learn(members ...*registryv1.Member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range members {
		if m.GetId() != "" && m.GetAddress() != "" {
			d.met[m.GetId()] = m.GetAddress()
		}
	}
}

// all answers every address that is known.
func (d *Directory) all() []string {
	var out []string
	for _, m := range d.rows.Servers() {
		if m.GetAddress() != "" && !m.GetRemoved() {
			out = append(out, m.GetAddress())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, address := range d.met {
		out = append(out, address)
	}
	return out
}
