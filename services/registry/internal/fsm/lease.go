package fsm

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

const (
	leases = registryv1.Table_TABLE_LEASE
	locks  = registryv1.Table_TABLE_LOCK
)

// Prefixes of the keys of TABLE_LEASE: a lease, what is attached to one, and a lease that has ended
// while something is attached to it still.
const (
	LeasePrefix  = "lease/"
	EndingPrefix = "ending/"
	heldPrefix   = "held/"
)

// LeaseRow returns the row of a lease.
func LeaseRow(id string) *registryv1.RecordKey {
	return &registryv1.RecordKey{Table: leases, Key: LeasePrefix + id}
}

// EndingRow returns the row that says that a lease has ended and something is attached to it still.
// While it is there no lease of that id may begin: it would lose what is attached to it.
func EndingRow(id string) *registryv1.RecordKey {
	return &registryv1.RecordKey{Table: leases, Key: EndingPrefix + id}
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

// attach keeps the rows that say what is attached to which lease in step with a row that is
// written.
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

// endLease deletes a lease and the rows attached to it. Locks that it held are lost. With a limit
// it deletes no more of these rows than that, and leaves a row that says so; a command with a limit
// goes on where such a row says.
func (a *application) endLease(op *registryv1.EndLease) error {
	lease, err := a.tx.Get(leases, LeasePrefix+op.GetId())
	if err != nil {
		return err
	}
	rest, err := a.tx.Get(leases, EndingPrefix+op.GetId())
	if err != nil || !record.Live(lease) && (!record.Live(rest) || op.GetLimit() == 0) {
		return err
	}
	done := ""
	if record.Live(rest) {
		done = string(rest.GetValue())
	}
	done, more, err := a.endAttached(op.GetId(), done, op.GetLimit())
	if err != nil {
		return err
	}
	if more || record.Live(rest) {
		a.result.More = more
		if err := a.tx.Put(a.ending(op.GetId(), done, lease, rest, !more)); err != nil {
			return err
		}
	}
	if !record.Live(lease) {
		return nil
	}
	return a.bury(lease)
}

// ending returns the row that says how far the end of a lease has come. Nobody reads it at an
// index, so its versions are not counted.
func (a *application) ending(id, done string, lease, rest *registryv1.Record, deleted bool) *registryv1.Record {
	row := &registryv1.Record{
		Table: leases, Key: EndingPrefix + id, Deleted: deleted, CreateIndex: a.index, ModifyIndex: a.index, Version: 1,
		OriginEpoch: a.cmd.GetEpoch(), OriginIndex: a.index, OriginTime: a.cmd.GetTime(),
	}
	if !deleted {
		row.Value = []byte(done)
	}
	row.OriginDatacenter = lease.GetOriginDatacenter()
	if record.Live(rest) {
		row.OriginDatacenter = rest.GetOriginDatacenter()
	}
	return row
}

// endAttached deletes what is attached to a lease, behind the last key that was; no more than limit
// rows, if that is not 0. It returns the last key now, and whether there is more. With a limit
// locks go first: others wait for them.
func (a *application) endAttached(id, done string, limit uint64) (last string, more bool, err error) {
	if limit == 0 {
		attached, err := a.below(&registryv1.RecordKey{Table: leases, Key: AttachedPrefix(id)}, 0)
		if err != nil {
			return "", false, err
		}
		return "", false, a.detachAll(id, attached)
	}
	held, err := a.attachedFrom(attachedKey(id, locks, ""), "", limit+1)
	if err != nil {
		return "", false, err
	}
	if uint64(len(held)) > limit {
		return done, true, a.detachAll(id, held[:limit])
	}
	if err := a.detachAll(id, held); err != nil {
		return "", false, err
	}
	limit -= uint64(len(held))
	// What comes before the last key is gone, and passing over so many tombstones each time would
	// take longer than deleting.
	rows, err := a.attachedFrom(AttachedPrefix(id), done, limit+1)
	if err != nil {
		return "", false, err
	}
	if uint64(len(rows)) > limit {
		rows, more = rows[:limit], true
	}
	if len(rows) > 0 {
		done = rows[len(rows)-1].GetKey()
	}
	return done, more, a.detachAll(id, rows)
}

// attachedFrom returns the first rows with a prefix that say what is attached to a lease, from a
// key on.
func (a *application) attachedFrom(prefix, from string, limit uint64) ([]*registryv1.Record, error) {
	var rows []*registryv1.Record
	err := a.tx.Scan(leases, record.ScanOptions{Prefix: prefix, From: from, KeysOnly: true}, func(r *registryv1.Record) bool {
		rows = append(rows, r)
		return uint64(len(rows)) < limit
	})
	return rows, err
}

// detachAll deletes the rows that are attached to a lease, by the rows that say so.
func (a *application) detachAll(id string, attached []*registryv1.Record) error {
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
	return nil
}

// DecodeLock reads the row of a lock; nil of one that is not there.
func DecodeLock(row *registryv1.Record) (*registryv1.Lock, error) {
	if !record.Live(row) {
		return nil, nil
	}
	lock := &registryv1.Lock{}
	return lock, record.Decode(row, lock)
}

// free reports whether a lease may have a lock at a time.
func free(lock *registryv1.Lock, lease string, now time.Time) bool {
	if lock.GetLease() != "" {
		return lock.GetLease() == lease
	}
	return !now.Before(lock.GetFreeAt().AsTime())
}

// acquire gives a lock to a lease, whoever had it: conditions say whether it may. It returns the
// row of a lock that the lease has already.
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
		// What is lost begins anew with its next holder: a token is the index at which the row was
		// made.
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
	value, err := record.Encode(lock)
	return &registryv1.Record{Table: locks, Key: lock.GetName(), Value: value, Lease: lock.GetLease()}, err
}
