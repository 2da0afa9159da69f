package record

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Each calls fn for each row of a scan in key order until fn fails, and returns that error.
func Each(r Scanner, table registryv1.Table, options ScanOptions, fn func(*registryv1.Record) error) error {
	var failure error
	err := r.Scan(table, options, func(row *registryv1.Record) bool {
		failure = fn(row)
		return failure == nil
	})
	if err != nil {
		return err
	}
	return failure
}

// Decode reads the value of a row into m. The error names the row.
func Decode(row *registryv1.Record, m proto.Message) error {
	if err := proto.Unmarshal(row.GetValue(), m); err != nil {
		return fmt.Errorf("decode %s %q: %w", row.GetTable(), row.GetKey(), err)
	}
	return nil
}

// Find returns a live row and decodes its value into m. It returns nil when there is none.
func Find(r Reader, table registryv1.Table, key string, m proto.Message) (*registryv1.Record, error) {
	row, err := r.Get(table, key)
	if err != nil || !Live(row) {
		return nil, err
	}
	return row, Decode(row, m)
}

// Encode returns the value of a row: the same bytes for the same message.
func Encode(m proto.Message) ([]byte, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	return value, nil
}

// Put returns the operation that writes m as a row of a datacenter.
func Put(table registryv1.Table, key, datacenter string, m proto.Message) (*registryv1.Operation, error) {
	value, err := Encode(m)
	return PutValue(table, key, datacenter, value), err
}

// PutValue returns the operation that writes a row of a datacenter.
func PutValue(table registryv1.Table, key, datacenter string, value []byte) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
		Table: table, Key: key, Value: value, OriginDatacenter: datacenter,
	}}}
}

// Delete returns the operation that deletes a row.
func Delete(table registryv1.Table, key string) *registryv1.Operation {
	return &registryv1.Operation{Op: &registryv1.Operation_Delete{Delete: &registryv1.RecordKey{Table: table, Key: key}}}
}

// When returns the condition that a row is as it was written at an index; 0: that it is absent.
func When(table registryv1.Table, key string, index uint64, reason string) *registryv1.Condition {
	return &registryv1.Condition{Row: &registryv1.RecordKey{Table: table, Key: key}, ModifyIndex: index, Reason: reason}
}
