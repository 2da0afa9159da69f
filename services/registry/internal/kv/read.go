package kv

import (
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// ReasonKeyNotFound says that a key has no value in any scope asked.
const ReasonKeyNotFound = "KEY_NOT_FOUND"

const table = registryv1.Table_TABLE_KV

// NotFound is the answer to a read of a key that has no value.
func NotFound(key record.Key) error {
	return fault.New(fault.NotFound, ReasonKeyNotFound, "key %q has no value", key.Bare).WithField("key")
}

// Get returns what a read of key sees, nil when there is nothing, and the index at which that last
// changed, deletions included.
func Get(r record.Reader, key record.Key) (*registryv1.Entry, uint64, error) {
	var found *registryv1.Entry
	var changed uint64
	for _, scope := range key.Read() {
		row, err := r.Get(table, key.In(scope))
		if err != nil {
			return nil, 0, err
		}
		changed = max(changed, row.GetModifyIndex())
		if found == nil && record.Live(row) {
			found = Entry(row)
		}
	}
	return found, changed, nil
}

// Entry returns a row as callers see it.
func Entry(row *registryv1.Record) *registryv1.Entry {
	key := record.FromStored(row.GetKey())
	return &registryv1.Entry{
		Key: key.Bare, Value: row.GetValue(), Scope: key.Scope, Flags: row.GetFlags(),
		CreateIndex: row.GetCreateIndex(), ModifyIndex: row.GetModifyIndex(), Version: row.GetVersion(),
		OriginDatacenter: row.GetOriginDatacenter(), ModifiedAt: row.GetOriginTime(),
		Lease: row.GetLease(), Meta: row.GetMeta(),
	}
}

// Changed returns the index at which anything below a prefix last changed, deletions included, if
// that is after since; else 0.
func Changed(r record.Reader, prefix record.Key, since uint64) (uint64, error) {
	var changed uint64
	for _, scope := range prefix.Read() {
		options := record.ScanOptions{Prefix: prefix.In(scope), Since: since, Deleted: true, KeysOnly: true}
		err := r.Scan(table, options, func(row *registryv1.Record) bool {
			changed = max(changed, row.GetModifyIndex())
			return true
		})
		if err != nil {
			return 0, err
		}
	}
	return changed, nil
}
