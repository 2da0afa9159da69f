package badgerstore

import (
	"fmt"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// metaTable is the first byte of rows that earlier versions kept for themselves. No table has this
// number.
const metaTable = 0xff

func rowKey(table registryv1.Table, key string) []byte {
	return appendRowKey(make([]byte, 0, 1+len(key)), table, key)
}

func appendRowKey(b []byte, table registryv1.Table, key string) []byte {
	return append(append(b, byte(table)), key...)
}

func checkTable(table registryv1.Table) error {
	if table <= 0 || table >= metaTable {
		return fmt.Errorf("table %d cannot be stored", table)
	}
	return nil
}

// decodeRow decodes a row. It refers to nothing of value.
func decodeRow(value []byte, keysOnly bool) (*registryv1.Record, error) {
	r := &registryv1.Record{}
	if err := r.UnmarshalVT(value); err != nil {
		return nil, fmt.Errorf("decode row: %w", err)
	}
	if keysOnly {
		r.Value = nil
	}
	return r, nil
}
