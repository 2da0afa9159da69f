package fsm

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// ErrUnknownCommand says that a newer server proposed what this one does not understand.
var ErrUnknownCommand = errors.New("command of an unknown kind: this server is older than the one that proposed it")

// Tx is the state as one command finds it, and collects what the command changes. Reads see the
// transaction's own writes.
type Tx interface {
	// Get returns a row or its tombstone, nil if there is neither. The caller must not change it.
	Get(table registryv1.Table, key string) (*registryv1.Record, error)
	record.Scanner
	// Put writes a row or a tombstone. The transaction keeps r.
	Put(r *registryv1.Record) error
	// Drop removes a row without a trace.
	Drop(table registryv1.Table, key string) error
}

// Decode reads a command off the Raft log. It refers to nothing of data.
func Decode(data []byte) (*registryv1.Command, error) {
	cmd := &registryv1.Command{}
	if err := cmd.UnmarshalVT(data); err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	if err := known(cmd); err != nil {
		return nil, err
	}
	return cmd, nil
}

func known(cmd *registryv1.Command) error {
	ok := len(cmd.ProtoReflect().GetUnknown()) == 0
	for _, op := range cmd.GetOperations() {
		ok = ok && knownOperation(op)
	}
	for _, op := range cmd.GetOtherwise() {
		ok = ok && knownOperation(op)
	}
	for _, c := range cmd.GetConditions() {
		ok = ok && c.GetRow() != nil && len(c.ProtoReflect().GetUnknown()) == 0 && knownComparison(c.GetComparison())
	}
	if !ok {
		return ErrUnknownCommand
	}
	return nil
}

func knownOperation(operation *registryv1.Operation) bool {
	var inner proto.Message
	switch op := operation.GetOp().(type) {
	case nil:
		return false
	case *registryv1.Operation_DeleteBelow:
		inner = op.DeleteBelow
	case *registryv1.Operation_EndLease:
		inner = op.EndLease
	case *registryv1.Operation_AcquireLock:
		inner = op.AcquireLock
	default:
		return len(operation.ProtoReflect().GetUnknown()) == 0 // What a row holds is not for this machine to know.
	}
	return len(operation.ProtoReflect().GetUnknown()) == 0 && len(inner.ProtoReflect().GetUnknown()) == 0
}

// Machine applies the entries of the log in order. Apply and Load belong to one goroutine; Seen is
// safe for concurrent use.
type Machine struct{ records records }

// New returns a machine over an empty state.
func New() *Machine { return &Machine{records: newRecords()} }

// Load makes the machine ready to go on from a stored state.
func (m *Machine) Load(r record.Reader) error { return m.records.load(r) }

// Seen reports whether the record of a request is kept.
func (m *Machine) Seen(requestID string) bool {
	_, _, ok := m.records.find(keyOf(requestID))
	return ok
}

// Apply does what the commands of one entry say at its Raft index, one after the other and each all
// or nothing, and returns their outcomes. A command whose request id was seen before changes
// nothing and has the first outcome. An error means the state cannot be trusted any more.
//
// It takes the commands, which Decode returned, over: the rows they put become the state's, and
// outcomes refer to those as they were written, values and all. Nobody may change either; Answer
// makes what may leave the server.
func (m *Machine) Apply(tx Tx, index uint64, cmds ...*registryv1.Command) ([]*registryv1.CommandResult, error) {
	results := make([]*registryv1.CommandResult, len(cmds))
	done := make([]applied, 0, len(cmds))
	for i, cmd := range cmds {
		result, err := m.once(tx, index, cmd, &done)
		if err != nil {
			return nil, err
		}
		results[i] = result
	}
	if len(cmds) == 0 {
		return results, nil
	}
	return results, m.records.remember(tx, index, cmds[0].GetTime(), done)
}

// once applies a command unless its request was applied before.
func (m *Machine) once(tx Tx, index uint64, cmd *registryv1.Command, done *[]applied) (*registryv1.CommandResult, error) {
	id := cmd.GetRequestId()
	if id == "" {
		return apply(tx, index, cmd)
	}
	key := keyOf(id)
	for _, d := range *done {
		switch {
		case d.key != key || d.cmd.GetRequestId() != id:
		case reused(d.cmd.GetDigest(), cmd):
			return refuse(index), nil
		default:
			return d.result, nil
		}
	}
	if result, err := m.records.recall(tx, key, cmd); err != nil || result != nil {
		return result, err
	}
	result, err := apply(tx, index, cmd)
	if err != nil {
		return nil, err
	}
	*done = append(*done, applied{key, cmd, result})
	return result, nil
}

// apply does what one command says, all of it or nothing, whatever its request id.
func apply(tx Tx, index uint64, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	a := application{tx: tx, index: index, cmd: cmd, result: &registryv1.CommandResult{Index: index}}
	failed, err := a.check()
	if err != nil {
		return nil, err
	}
	operations := cmd.GetOperations()
	if n := len(operations); n > 1 {
		a.result.Written = make([]*registryv1.Record, 0, n)
	}
	if failed != nil {
		a.result.FailedReason, a.result.FailedRow = failed.GetReason(), failed.GetRow()
		if !failed.GetChooses() {
			return a.result, nil
		}
		operations = cmd.GetOtherwise()
	}
	tooMuch, err := a.tooMuch(operations)
	if err != nil || tooMuch {
		return a.result, err
	}
	return a.result, a.operate(operations)
}

type application struct {
	tx     Tx
	index  uint64
	cmd    *registryv1.Command
	result *registryv1.CommandResult
}

// check returns the first condition that does not hold; one that fails the command comes before one
// that chooses what it does.
func (a *application) check() (*registryv1.Condition, error) {
	var chosen *registryv1.Condition
	for _, c := range a.cmd.GetConditions() {
		row, err := a.tx.Get(c.GetRow().GetTable(), c.GetRow().GetKey())
		if err != nil {
			return nil, err
		}
		holds, err := a.holds(c, row)
		switch {
		case err != nil:
			return nil, err
		case holds:
		case !c.GetChooses():
			return c, nil
		case chosen == nil:
			chosen = c
		}
	}
	return chosen, nil
}

// operate carries out the operations in order.
func (a *application) operate(operations []*registryv1.Operation) error {
	for _, operation := range operations {
		before, wrote := a.result.GetChanged(), len(a.result.GetWritten())
		read, err := a.do(operation)
		if err != nil {
			return err
		}
		if !a.cmd.GetDetailed() {
			continue
		}
		outcome := &registryv1.OperationOutcome{Changed: a.result.GetChanged() - before, Row: read}
		if written := a.result.GetWritten(); read == nil && len(written) > wrote {
			outcome.Row = bare(written[len(written)-1])
		}
		a.result.Outcomes = append(a.result.Outcomes, outcome)
	}
	return nil
}

// do carries out one operation and returns the row it read, if it read one.
func (a *application) do(operation *registryv1.Operation) (read *registryv1.Record, err error) {
	switch op := operation.GetOp().(type) {
	case *registryv1.Operation_Put:
		err = a.put(op.Put)
	case *registryv1.Operation_Delete:
		err = a.delete(op.Delete)
	case *registryv1.Operation_DeletePrefix:
		err = a.deletePrefix(op.DeletePrefix)
	case *registryv1.Operation_Replicate:
		err = a.replicate(op.Replicate)
	case *registryv1.Operation_Get:
		read, err = a.tx.Get(op.Get.GetTable(), op.Get.GetKey())
		if !record.Live(read) {
			read = nil
		}
	case *registryv1.Operation_DeleteBelow:
		err = a.deleteBelow(op.DeleteBelow)
	case *registryv1.Operation_EndLease:
		err = a.endLease(op.EndLease)
	case *registryv1.Operation_AcquireLock:
		read, err = a.acquire(op.AcquireLock)
	default:
		err = ErrUnknownCommand
	}
	return read, err
}

func (a *application) put(r *registryv1.Record) error {
	old, err := a.tx.Get(r.GetTable(), r.GetKey())
	if err != nil {
		return err
	}
	originate(r, a.index, a.cmd.GetEpoch(), a.cmd.GetTime())
	return a.write(old, r)
}

// originate makes a row that a command puts one that is written here.
func originate(r *registryv1.Record, index, epoch uint64, at *timestamppb.Timestamp) {
	r.Deleted, r.OriginEpoch, r.OriginIndex, r.OriginTime = false, epoch, index, at
}

func (a *application) delete(key *registryv1.RecordKey) error {
	old, err := a.tx.Get(key.GetTable(), key.GetKey())
	if err != nil || !record.Live(old) {
		return err
	}
	return a.bury(old)
}

func (a *application) deletePrefix(prefix *registryv1.RecordKey) error {
	rows, err := a.below(prefix, 0)
	if err != nil {
		return err
	}
	return a.buryAll(rows)
}

// deleteBelow deletes no more rows than it may.
func (a *application) deleteBelow(d *registryv1.DeleteBelow) error {
	rows, err := a.below(d.GetPrefix(), d.GetLimit()+1)
	if err != nil {
		return err
	}
	if uint64(len(rows)) > d.GetLimit() {
		rows, a.result.More = rows[:d.GetLimit()], true
	}
	return a.buryAll(rows)
}

// below returns the live rows below a prefix, without their values; at most limit of them, if that
// is not 0.
func (a *application) below(prefix *registryv1.RecordKey, limit uint64) ([]*registryv1.Record, error) {
	var rows []*registryv1.Record
	options := record.ScanOptions{Prefix: prefix.GetKey(), KeysOnly: true}
	err := a.tx.Scan(prefix.GetTable(), options, func(r *registryv1.Record) bool {
		rows = append(rows, r)
		return limit == 0 || uint64(len(rows)) < limit
	})
	return rows, err
}

func (a *application) buryAll(rows []*registryv1.Record) error {
	for _, r := range rows {
		if err := a.bury(r); err != nil {
			return err
		}
	}
	return nil
}

// FailedTooMuch is why a command fails that would delete or return more than it may.
const FailedTooMuch = "TOO_MUCH"

// tooMuch says, before anything is done, whether the operations would delete or return more than
// they may.
func (a *application) tooMuch(operations []*registryv1.Operation) (bool, error) {
	fail := func(row *registryv1.RecordKey) (bool, error) {
		a.result.FailedReason, a.result.FailedRow = FailedTooMuch, row
		return true, nil
	}
	answer, deleted := uint64(0), uint64(0)
	for _, operation := range operations {
		if d := operation.GetDeleteBelow(); d != nil && !d.GetPartial() {
			limit := d.GetLimit()
			if most := a.cmd.GetMaxDeleted(); most > 0 {
				limit = min(limit, most-deleted)
			}
			rows, err := a.below(d.GetPrefix(), limit+1)
			if err != nil {
				return false, err
			}
			if uint64(len(rows)) > limit {
				return fail(d.GetPrefix())
			}
			deleted += uint64(len(rows))
		}
		if key := operation.GetGet(); key != nil && a.cmd.GetMaxAnswerBytes() > 0 {
			row, err := a.tx.Get(key.GetTable(), key.GetKey())
			if err != nil {
				return false, err
			}
			if answer += uint64(len(row.GetValue())); answer > a.cmd.GetMaxAnswerBytes() {
				return fail(key)
			}
		}
	}
	return false, nil
}

// bury leaves a tombstone written in the old row's datacenter: only that one may delete it.
func (a *application) bury(old *registryv1.Record) error {
	return a.write(old, &registryv1.Record{
		Table: old.GetTable(), Key: old.GetKey(), Deleted: true,
		OriginDatacenter: old.GetOriginDatacenter(), OriginEpoch: a.cmd.GetEpoch(),
		OriginIndex: a.index, OriginTime: a.cmd.GetTime(),
	})
}

// replicate copies a row of another datacenter. A copy that is here already costs nothing, so that
// a full sync of what did not change wakes nobody.
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
		Table: r.GetTable(), Key: r.GetKey(), Value: r.GetValue(), Deleted: r.GetDeleted(), Flags: r.GetFlags(), Meta: r.GetMeta(),
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
		a.result.Written = append(a.result.Written, row)
	}
	if err := a.attach(old, row); err != nil {
		return err
	}
	return a.tx.Put(row)
}

// Answer makes an outcome that others may have: rows that were written come without their values.
func Answer(result *registryv1.CommandResult) *registryv1.CommandResult {
	if len(result.GetWritten()) == 0 {
		return result
	}
	answer := &registryv1.CommandResult{
		Index: result.GetIndex(), FailedReason: result.GetFailedReason(), FailedRow: result.GetFailedRow(),
		Changed: result.GetChanged(), Outcomes: result.GetOutcomes(), More: result.GetMore(),
		Written: make([]*registryv1.Record, len(result.GetWritten())),
	}
	for i, row := range result.GetWritten() {
		answer.Written[i] = bare(row)
	}
	return answer
}

func bare(r *registryv1.Record) *registryv1.Record {
	return &registryv1.Record{
		Table: r.GetTable(), Key: r.GetKey(), CreateIndex: r.GetCreateIndex(), ModifyIndex: r.GetModifyIndex(),
		Version: r.GetVersion(), Flags: r.GetFlags(), Lease: r.GetLease(), Meta: r.GetMeta(), OriginDatacenter: r.GetOriginDatacenter(),
		OriginEpoch: r.GetOriginEpoch(), OriginIndex: r.GetOriginIndex(), OriginTime: r.GetOriginTime(),
	}
}
