package badgerstore

import registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

type rowID struct {
	table registryv1.Table
	key   string
}

// byRow maps rows to what is known of them, by table, of which there are few, and key: plain
// strings are hashed and compared far faster than structs that hold one, and every read and every
// write asks. The zero byRow is empty.
type byRow[V any] struct{ tables []map[string]V }

func (m *byRow[V]) get(id rowID) (V, bool) {
	v, ok := m.table(id.table)[id.key]
	return v, ok
}

// table returns the rows of a table by their keys; nobody else may change it.
func (m *byRow[V]) table(table registryv1.Table) map[string]V {
	if table < 0 || int(table) >= len(m.tables) {
		return nil
	}
	return m.tables[table]
}

func (m *byRow[V]) set(id rowID, v V) {
	for int(id.table) >= len(m.tables) {
		m.tables = append(m.tables, nil)
	}
	if m.tables[id.table] == nil {
		m.tables[id.table] = map[string]V{}
	}
	m.tables[id.table][id.key] = v
}

func (m *byRow[V]) drop(id rowID) { delete(m.table(id.table), id.key) }

// clear forgets all rows and keeps the room they took.
func (m *byRow[V]) clear() {
	for _, rows := range m.tables {
		clear(rows)
	}
}
