package backup

import (
	"errors"
	"io"

	"konsul.dev/pkg/backupfile"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// merged reads a full backup and the increments on it as one: of each row the newest version,
// unless that is a tombstone. All of them are in table and key order, so it holds one row of each.
type merged struct {
	readers []*backupfile.Reader
	heads   []*registryv1.Record
}

func merge(readers []*backupfile.Reader) (*merged, error) {
	m := &merged{readers: readers, heads: make([]*registryv1.Record, len(readers))}
	for i := range readers {
		if err := m.advance(i); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *merged) advance(i int) error {
	before := m.heads[i]
	row, err := m.readers[i].Next()
	if errors.Is(err, io.EOF) {
		m.heads[i] = nil
		return nil
	}
	if err != nil {
		return err
	}
	if before != nil && !less(before, row) {
		return backupfile.Damaged("its rows are out of order")
	}
	m.heads[i] = row
	return nil
}

func less(a, b *registryv1.Record) bool {
	if a.GetTable() != b.GetTable() {
		return a.GetTable() < b.GetTable()
	}
	return a.GetKey() < b.GetKey()
}

// next returns nil after the last row.
func (m *merged) next() (*registryv1.Record, error) {
	for {
		var newest *registryv1.Record
		for _, head := range m.heads {
			if head != nil && (newest == nil || !less(newest, head)) {
				newest = head // Of equal keys the later file's.
			}
		}
		if newest == nil {
			return nil, nil
		}
		for i, head := range m.heads {
			if head != nil && !less(newest, head) {
				if err := m.advance(i); err != nil {
					return nil, err
				}
			}
		}
		if !newest.GetDeleted() {
			return newest, nil
		}
	}
}
