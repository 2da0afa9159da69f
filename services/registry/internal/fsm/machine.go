package fsm

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// ErrUnknownCommand says that a newer server proposed what this one does not understand.
var ErrUnknownCommand = errors.New("command of an unknown kind: this server is older than the one that proposed it")

// Tx is the state as one command finds it, and collects what the command changes. Reads see the
// transaction's own writes.
type Tx interface {
	// Get answers a row or its tombstone, nil if there is neither. The caller must not change it.
	Get(table registryv1.Table, key string) (*registryv1.Record, error)
	// Scan is record.Reader's Scan.
	Scan(table registryv1.Table, options record.ScanOptions, fn func(*registryv1.Record) bool) error
	// Put writes a row or a tombstone. The transaction keeps r.
	Put(r *registryv1.Record) error
	// Drop removes a row without a trace.
	Drop(table registryv1.Table, key string) error
}

// Decode reads a command off the Raft log.
func Decode(data []byte) (*registryv1.Command, error) {
	cmd := &registryv1.Command{}
	if err := proto.Unmarshal(data, cmd); err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	if err := known(cmd); err != nil {
		return nil, err
	}
	return cmd, nil
}

func known(cmd *registryv1.Command) error {
	unknown := len(cmd.ProtoReflect().GetUnknown()) > 0
	for _, op := range cmd.GetOperations() {
		unknown = unknown || op.GetOp() == nil || len(op.ProtoReflect().GetUnknown()) > 0
	}
	for _, c := range cmd.GetConditions() {
		unknown = unknown || c.GetRow() == nil || len(c.ProtoReflect().GetUnknown()) > 0
	}
	if unknown {
		return ErrUnknownCommand
	}
	return nil
}

// Apply does what one command says at a Raft index, all of it or nothing, and answers its outcome. A
// command whose request id was seen before changes nothing and answers the first outcome. An error
// means the state cannot be trusted any more.
func Apply(tx Tx, index uint64, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	if err := known(cmd); err != nil {
		return nil, err
	}
	if result, seen, err := recall(tx, cmd); err != nil || seen {
		return result, err
	}
	a := application{tx: tx, index: index, cmd: cmd, result: &registryv1.CommandResult{Index: index}}
	failed, err := a.check()
	if err != nil {
		return nil, err
	}
	if failed != nil {
		a.result.FailedReason, a.result.FailedRow = failed.GetReason(), failed.GetRow()
	} else if err := a.operate(); err != nil {
		return nil, err
	}
	if err := remember(tx, index, cmd, a.result); err != nil {
		return nil, err
	}
	if err := sweep(tx, index, cmd); err != nil {
		return nil, err
	}
	return a.result, nil
}

type application struct {
	tx     Tx
	index  uint64
	cmd    *registryv1.Command
	result *registryv1.CommandResult
}

// check answers the first condition that does not hold.
func (a *application) check() (*registryv1.Condition, error) {
	for _, c := range a.cmd.GetConditions() {
		row, err := a.tx.Get(c.GetRow().GetTable(), c.GetRow().GetKey())
		if err != nil {
			return nil, err
		}
		if record.ModifyIndex(row) != c.GetModifyIndex() {
			return c, nil
		}
	}
	return nil, nil
}

func (a *application) operate() error {
	for _, operation := range a.cmd.GetOperations() {
		var err error
		switch op := operation.GetOp().(type) {
		case *registryv1.Operation_Put:
			err = a.put(op.Put)
		case *registryv1.Operation_Delete:
			err = a.delete(op.Delete)
		case *registryv1.Operation_DeletePrefix:
			err = a.deletePrefix(op.DeletePrefix)
		case *registryv1.Operation_Replicate:
			err = a.replicate(op.Replicate)
		default:
			err = ErrUnknownCommand
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *application) put(r *registryv1.Record) error {
	old, err := a.tx.Get(r.GetTable(), r.GetKey())
	if err != nil {
		return err
	}
	row := &registryv1.Record{
		Table: r.GetTable(), Key: r.GetKey(), Value: r.GetValue(), Flags: r.GetFlags(),
		OriginDatacenter: r.GetOriginDatacenter(), OriginEpoch: a.cmd.GetEpoch(),
		OriginIndex: a.index, OriginTime: a.cmd.GetTime(),
	}
	row.ProtoReflect().SetUnknown(r.ProtoReflect().GetUnknown())
	return a.write(old, row)
}

func (a *application) delete(key *registryv1.RecordKey) error {
	old, err := a.tx.Get(key.GetTable(), key.GetKey())
	if err != nil || !record.Live(old) {
		return err
	}
	return a.bury(old)
}

func (a *application) deletePrefix(prefix *registryv1.RecordKey) error {
	var rows []*registryv1.Record
	options := record.ScanOptions{Prefix: prefix.GetKey(), KeysOnly: true}
	err := a.tx.Scan(prefix.GetTable(), options, func(r *registryv1.Record) bool {
		rows = append(rows, r)
		return true
	})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := a.bury(r); err != nil {
			return err
		}
	}
	return nil
}

// bury leaves a tombstone written in the old row's datacenter: only that one may delete it.
func (a *application) bury(old *registryv1.Record) error {
	return a.write(old, &registryv1.Record{
		Table: old.GetTable(), Key: old.GetKey(), Deleted: true,
		OriginDatacenter: old.GetOriginDatacenter(), OriginEpoch: a.cmd.GetEpoch(),
		OriginIndex: a.index, OriginTime: a.cmd.GetTime(),
	})
}

// replicate copies a row of another datacenter. A copy that is here already costs nothing, so that a
// full sync of what did not change wakes nobody.
func (a *application) replicate(r *registryv1.Record) error {
	old, err := a.tx.Get(r.GetTable(), r.GetKey())
	if err != nil {
		return err
	}
	same := old != nil && old.GetDeleted() == r.GetDeleted() && old.GetOriginDatacenter() == r.GetOriginDatacenter() &&
		old.GetOriginEpoch() == r.GetOriginEpoch() && old.GetOriginIndex() == r.GetOriginIndex()
	if same || r.GetDeleted() && !record.Live(old) {
		return nil
	}
	row := &registryv1.Record{
		Table: r.GetTable(), Key: r.GetKey(), Value: r.GetValue(), Deleted: r.GetDeleted(), Flags: r.GetFlags(),
		OriginDatacenter: r.GetOriginDatacenter(), OriginEpoch: r.GetOriginEpoch(),
		OriginIndex: r.GetOriginIndex(), OriginTime: r.GetOriginTime(),
	}
	row.ProtoReflect().SetUnknown(r.ProtoReflect().GetUnknown())
	return a.write(old, row)
}

// write stamps a row with its indexes and puts it.
func (a *application) write(old, row *registryv1.Record) error {
	row.CreateIndex, row.ModifyIndex, row.Version = a.index, a.index, 1
	if record.Live(old) {
		row.CreateIndex, row.Version = old.GetCreateIndex(), old.GetVersion()+1
	}
	a.result.Changed++
	if !row.GetDeleted() {
		a.result.Written = append(a.result.Written, bare(row))
	}
	return a.tx.Put(row)
}

func bare(r *registryv1.Record) *registryv1.Record {
	return &registryv1.Record{
		Table: r.GetTable(), Key: r.GetKey(), CreateIndex: r.GetCreateIndex(), ModifyIndex: r.GetModifyIndex(),
		Version: r.GetVersion(), Flags: r.GetFlags(), OriginDatacenter: r.GetOriginDatacenter(),
		OriginEpoch: r.GetOriginEpoch(), OriginIndex: r.GetOriginIndex(), OriginTime: r.GetOriginTime(),
	}
}
