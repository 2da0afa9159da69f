package federation

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// FirstEpoch is the epoch in which a federation is founded.
const FirstEpoch = 1

// recordKey is the one key of the federation table.
const recordKey = "federation"

// Read returns the federation record with its members, nil when this datacenter has none yet.
func Read(r record.Reader) (*federationv1.Federation, error) {
	row, err := r.Get(registryv1.Table_TABLE_FEDERATION, recordKey)
	if err != nil || !record.Live(row) {
		return nil, err
	}
	f := &federationv1.Federation{}
	if err := proto.Unmarshal(row.GetValue(), f); err != nil {
		return nil, fmt.Errorf("decode federation record: %w", err)
	}
	f.Members, err = Members(r)
	return f, err
}

// Members returns the datacenters this one knows as members, by name.
func Members(r record.Reader) ([]*federationv1.Datacenter, error) {
	var members []*federationv1.Datacenter
	var failure error
	err := r.Scan(registryv1.Table_TABLE_DATACENTER, record.ScanOptions{}, func(row *registryv1.Record) bool {
		dc := &federationv1.Datacenter{}
		failure = errors.Join(failure, proto.Unmarshal(row.GetValue(), dc))
		members = append(members, dc)
		return true
	})
	if err := errors.Join(err, failure); err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	slices.SortFunc(members, func(a, b *federationv1.Datacenter) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return members, nil
}

func put(table registryv1.Table, key, datacenter string, m proto.Message) (*registryv1.Operation, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", table, err)
	}
	return &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
		Table: table, Key: key, Value: value, OriginDatacenter: datacenter,
	}}}, nil
}

func when(table registryv1.Table, key string, modifyIndex uint64, reason string) *registryv1.Condition {
	return &registryv1.Condition{Row: &registryv1.RecordKey{Table: table, Key: key}, ModifyIndex: modifyIndex, Reason: reason}
}
