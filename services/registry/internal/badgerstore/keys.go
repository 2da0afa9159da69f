package badgerstore

import (
	"bytes"
	"encoding/binary"
	"fmt"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// metaTable is the first byte of the store's own rows. No table has this number.
const metaTable = 0xff

func rowKey(table registryv1.Table, key string) []byte {
	return appendRowKey(make([]byte, 0, 1+len(key)), table, key)
}

func appendRowKey(b []byte, table registryv1.Table, key string) []byte {
	return append(append(b, byte(table)), key...)
}

// appliedKey holds the index of the last batch that is here in full.
func appliedKey() []byte { return []byte{metaTable, 'a'} }

// encodeApplied makes the row of the applied index and of the window's floor.
func encodeApplied(index, floor uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), index), floor)
}

func decodeApplied(b []byte) (index, floor uint64, err error) {
	if len(b) != 16 {
		return 0, 0, fmt.Errorf("applied index of %d bytes", len(b))
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), nil
}

func checkTable(table registryv1.Table) error {
	if table <= 0 || table >= metaTable {
		return fmt.Errorf("table %d cannot be stored", table)
	}
	return nil
}

func decodeRow(value []byte, keysOnly bool) (*registryv1.Record, error) {
	r := &registryv1.Record{}
	if err := r.UnmarshalVTUnsafe(bytes.Clone(value)); err != nil {
		return nil, fmt.Errorf("decode row: %w", err)
	}
	if keysOnly {
		r.Value = nil
	}
	return r, nil
}
