package badgerstore

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// metaTable is the first byte of the store's own rows. No table has this number.
const metaTable = 0xff

func rowKey(table registryv1.Table, key string) []byte {
	b := make([]byte, 0, 1+len(key))
	b = append(b, byte(table))
	return append(b, key...)
}

// appliedKey holds the index of the last batch that is here in full.
func appliedKey() []byte { return []byte{metaTable, 'a'} }

func encodeIndex(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func decodeIndex(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("index of %d bytes", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

func checkTable(table registryv1.Table) error {
	if table <= 0 || table >= metaTable {
		return fmt.Errorf("table %d cannot be stored", table)
	}
	return nil
}

func decodeRow(value []byte, keysOnly bool) (*registryv1.Record, error) {
	r := &registryv1.Record{}
	if err := proto.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("decode row: %w", err)
	}
	if keysOnly {
		r.Value = nil
	}
	return r, nil
}
