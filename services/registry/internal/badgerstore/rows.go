package badgerstore

import registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

type rowID struct {
	table registryv1.Table
	key   string
}

// byRow maps rows to what is known of them, by table and key: plain strings are hashed and compared far faster than
// structs that hold one, and every read and every write asks.
type byRow[V any] map[registryv1.Table]map[string]V

func (m byRow[V]) get(id rowID) (V, bool) {
	v, ok := m[id.table][id.key]
	return v, ok
}

func (m byRow[V]) set(id rowID, v V) {
	rows := m[id.table]
	if rows == nil {
		rows = map[string]V{}
		m[id.table] = rows
	}
	rows[id.key] = v
}

func (m byRow[V]) drop(id rowID) { delete(m[id.table], id.key) }

// clear forgets all rows and keeps the room they took.
func (m byRow[V]) clear() {
	for _, rows := range m {
		clear(rows)
	}
}
