package fsm

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

const (
	leases = registryv1.Table_TABLE_LEASE
	locks  = registryv1.Table_TABLE_LOCK
)

// Prefixes of the keys of TABLE_LEASE: a lease, and what is attached to one.
const (
	LeasePrefix = "lease/"
	heldPrefix  = "held/"
)

// LeaseRow answers the row of a lease.
func LeaseRow(id string) *registryv1.RecordKey {
	return &registryv1.RecordKey{Table: leases, Key: LeasePrefix + id}
}

// AttachedPrefix is what the keys of the rows that name what is attached to a lease begin with.
func AttachedPrefix(lease string) string { return heldPrefix + lease + "/" }

func attachedKey(lease string, table registryv1.Table, key string) string {
	return AttachedPrefix(lease) + strconv.Itoa(int(table)) + "/" + key
}

// Attached takes the key of such a row apart.
func Attached(lease, key string) (*registryv1.RecordKey, error) {
	table, rest, ok := strings.Cut(strings.TrimPrefix(key, AttachedPrefix(lease)), "/")
	number, err := strconv.ParseInt(table, 10, 32)
	if err != nil || !ok {
		return nil, fmt.Errorf("row %q says nothing of what is attached to lease %q", key, lease)
	}
	return &registryv1.RecordKey{Table: registryv1.Table(number), Key: rest}, nil
}

// attach keeps the rows that say what is attached to which lease in step with a row that is written.
func (a *application) attach(old, row *registryv1.Record) error {
	from, to := "", row.GetLease()
	if record.Live(old) {
		from = old.GetLease()
	}
	if from == to {
		return nil
	}
	if from != "" {
		if err := a.tx.Put(a.attachment(from, row, true)); err != nil {
			return err
		}
	}
	if to == "" {
		return nil
	}
	return a.tx.Put(a.attachment(to, row, false))
}

func (a *application) attachment(lease string, row *registryv1.Record, deleted bool) *registryv1.Record {
	return &registryv1.Record{
		Table: leases, Key: attachedKey(lease, row.GetTable(), row.GetKey()), Deleted: deleted,
		CreateIndex: a.index, ModifyIndex: a.index, Version: 1,
		OriginDatacenter: row.GetOriginDatacenter(), OriginEpoch: a.cmd.GetEpoch(), OriginIndex: a.index, OriginTime: a.cmd.GetTime(),
	}
}

// endLease deletes a lease and the rows attached to it. Locks that it held are lost.
func (a *application) endLease(id string) error {
	lease, err := a.tx.Get(leases, LeasePrefix+id)
	if err != nil || !record.Live(lease) {
		return err
	}
	attached, err := a.below(&registryv1.RecordKey{Table: leases, Key: AttachedPrefix(id)}, 0)
	if err != nil {
		return err
	}
	for _, held := range attached {
		key, err := Attached(id, held.GetKey())
		if err != nil {
			return err
		}
		row, err := a.tx.Get(key.GetTable(), key.GetKey())
		if err != nil {
			return err
		}
		if key.GetTable() == locks {
			err = a.lose(row)
		} else {
			err = a.bury(row)
		}
		if err != nil {
			return err
		}
	}
	return a.bury(lease)
}

// DecodeLock reads the row of a lock; nil of one that is not there.
func DecodeLock(row *registryv1.Record) (*registryv1.Lock, error) {
	if !record.Live(row) {
		return nil, nil
	}
	lock := &registryv1.Lock{}
	if err := proto.Unmarshal(row.GetValue(), lock); err != nil {
		return nil, fmt.Errorf("decode lock %q: %w", row.GetKey(), err)
	}
	return lock, nil
}

// free says whether a lease may have a lock at a time.
func free(lock *registryv1.Lock, lease string, now time.Time) bool {
	if lock.GetLease() != "" {
		return lock.GetLease() == lease
	}
	return !now.Before(lock.GetFreeAt().AsTime())
}

// acquire gives a lock to a lease, whoever had it: conditions say whether it may. It answers the row of
// a lock that the lease has already.
func (a *application) acquire(op *registryv1.AcquireLock) (*registryv1.Record, error) {
	old, err := a.tx.Get(locks, op.GetName())
	if err != nil {
		return nil, err
	}
	held, err := DecodeLock(old)
	if err != nil {
		return nil, err
	}
	if held != nil && held.GetLease() == op.GetLease() {
		return old, nil
	}
	if record.Live(old) {
		// What is lost begins anew with its next holder: a token is the index at which the row was made.
		if err := a.bury(old); err != nil {
			return nil, err
		}
	}
	row, err := lockRow(&registryv1.Lock{
		Name: op.GetName(), Lease: op.GetLease(), Token: a.index, AcquiredAt: a.cmd.GetTime(), Delay: op.GetDelay(), Holder: op.GetHolder(),
	})
	if err != nil {
		return nil, err
	}
	if err := a.put(row); err != nil {
		return nil, err
	}
	return row, nil
}

// lose keeps a lock from everybody for its delay.
func (a *application) lose(old *registryv1.Record) error {
	lock, err := DecodeLock(old)
	if err != nil || lock == nil {
		return err
	}
	if lock.GetDelay().AsDuration() <= 0 {
		return a.bury(old)
	}
	lock.Lease, lock.FreeAt = "", timestamppb.New(a.cmd.GetTime().AsTime().Add(lock.GetDelay().AsDuration()))
	row, err := lockRow(lock)
	if err != nil {
		return err
	}
	return a.put(row)
}

func lockRow(lock *registryv1.Lock) (*registryv1.Record, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(lock)
	if err != nil {
		return nil, fmt.Errorf("encode lock %q: %w", lock.GetName(), err)
	}
	return &registryv1.Record{Table: locks, Key: lock.GetName(), Value: value, Lease: lock.GetLease()}, nil
}
