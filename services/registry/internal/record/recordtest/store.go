// Package recordtest keeps the registry's state in a map, for tests of the packages that only read
// rows or apply commands. It is not safe for concurrent use.
package recordtest

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

type id struct {
	table registryv1.Table
	key   string
}

// Store is the state. It is its own reader and its own transaction.
type Store struct {
	rows  map[id]*registryv1.Record
	past  map[id][]*registryv1.Record
	index uint64
}

// New returns an empty store.
func New() *Store {
	return &Store{rows: map[id]*registryv1.Record{}, past: map[id][]*registryv1.Record{}}
}

// At returns the store as the command at an index finds it.
func (s *Store) At(index uint64) *Store {
	s.index = index
	return s
}

// Index returns the last index given to At.
func (s *Store) Index() uint64 { return s.index }

// View runs fn on the store.
func (s *Store) View(fn func(record.Reader) error) error { return fn(s) }

// ViewAt shows the present as of its own index only: the map keeps no versions.
func (s *Store) ViewAt(index uint64, fn func(record.Reader) error) error {
	if index > s.index {
		return record.Ahead(index, s.index)
	}
	if index < s.index {
		return record.Compacted(index, s.index)
	}
	return fn(s)
}

// Oldest is the present.
func (s *Store) Oldest() uint64 { return s.index }

// Watermark is 0: nothing is forgotten.
func (s *Store) Watermark() uint64 { return 0 }

// Get returns a row or its tombstone.
func (s *Store) Get(table registryv1.Table, key string) (*registryv1.Record, error) {
	if r, ok := s.rows[id{table, key}]; ok {
		return proto.CloneOf(r), nil
	}
	return nil, nil
}

// Put writes a row.
func (s *Store) Put(r *registryv1.Record) error {
	key, row := id{r.GetTable(), r.GetKey()}, proto.CloneOf(r)
	s.rows[key] = row
	versions := s.past[key]
	if n := len(versions); n > 0 && versions[n-1].GetModifyIndex() == row.GetModifyIndex() {
		versions = versions[:n-1]
	}
	s.past[key] = append(versions, row)
	return nil
}

// Drop removes a row.
func (s *Store) Drop(table registryv1.Table, key string) error {
	delete(s.rows, id{table, key})
	delete(s.past, id{table, key})
	return nil
}

// History calls fn for the versions of a row, the newest first. All of them are known.
func (s *Store) History(table registryv1.Table, key string, fn func(*registryv1.Record) bool) (uint64, error) {
	for _, r := range slices.Backward(s.past[id{table, key}]) {
		if !fn(proto.CloneOf(r)) {
			break
		}
	}
	return 0, nil
}

// Scan calls fn for matching rows in key order.
func (s *Store) Scan(table registryv1.Table, o record.ScanOptions, fn func(*registryv1.Record) bool) error {
	for _, r := range s.All() {
		matches := r.GetTable() == table && strings.HasPrefix(r.GetKey(), o.Prefix) && r.GetKey() >= o.From &&
			r.GetModifyIndex() > o.Since && (o.Deleted || !r.GetDeleted())
		if matches && !fn(r) {
			return nil
		}
	}
	return nil
}

// All returns copies of every row and tombstone in table and key order.
func (s *Store) All() []*registryv1.Record {
	var out []*registryv1.Record
	for _, r := range s.rows {
		out = append(out, proto.CloneOf(r))
	}
	slices.SortFunc(out, func(a, b *registryv1.Record) int {
		return cmp.Or(cmp.Compare(a.GetTable(), b.GetTable()), cmp.Compare(a.GetKey(), b.GetKey()))
	})
	return out
}

// Dump returns every row and tombstone of any reader in table and key order.
func Dump(r record.Reader) ([]*registryv1.Record, error) {
	var out []*registryv1.Record
	tables := make([]registryv1.Table, 0, len(registryv1.Table_name))
	for number := range registryv1.Table_name {
		if number != 0 {
			tables = append(tables, registryv1.Table(number))
		}
	}
	slices.Sort(tables)
	for _, table := range tables {
		err := r.Scan(table, record.ScanOptions{Deleted: true}, func(row *registryv1.Record) bool {
			out = append(out, row)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
