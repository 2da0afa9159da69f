package cluster

import (
	"sync"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/member"
)

// Directory knows where the datacenter's servers are reached: as they recorded it, or else as they
// said when they were met, or else as this server was configured. One that has moved and cannot
// record it yet, as there is no leader without it, is where it said it is. Safe for concurrent use.
type Directory struct {
	rows *member.View

	mu    sync.Mutex
	met   map[string]string
	moved map[string]move
}

// move is what a member said of itself, and its row at that moment: a later row knows better.
type move struct{ said, row *registryv1.Member }

// NewDirectory returns a directory over the stored rows; configured maps ids to gRPC addresses.
func NewDirectory(rows *member.View, configured map[string]string) *Directory {
	d := &Directory{rows: rows, met: map[string]string{}, moved: map[string]move{}}
	for id, address := range configured {
		d.met[id] = address
	}
	return d
}

// Address returns where a server serves gRPC.
func (d *Directory) Address(id string) (string, bool) {
	if said := d.saidBy(id); said != nil {
		return said.GetAddress(), true
	}
	if address, ok := d.rows.Address(id); ok {
		return address, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	address, ok := d.met[id]
	return address, ok
}

// Moved returns where the server is reached now that the Raft configuration has at an address,
// false when it is still there.
func (d *Directory) Moved(raftAddress string) (string, bool) {
	for _, row := range d.rows.Servers() {
		if said := d.saidBy(row.GetId()); said != nil && row.GetRaftAddress() == raftAddress {
			return said.GetRaftAddress(), true
		}
	}
	return "", false
}

func (d *Directory) saidBy(id string) *registryv1.Member {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.moved[id]
	if !ok {
		return nil
	}
	if !proto.Equal(m.row, d.rows.Server(id)) {
		delete(d.moved, id)
		return nil
	}
	return m.said
}

func (d *Directory) move(m move) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moved[m.said.GetId()] = m
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

// all returns every address that is known.
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
	for _, m := range d.moved {
		out = append(out, m.said.GetAddress())
	}
	return out
}
