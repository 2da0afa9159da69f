package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/requestid"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// How long the record of an idempotency key is kept by the leaders' clocks: NamedRetention if the
// caller named the key, requestid.Retention if it was minted; and of each kind no more than the
// last RecordsKept. They are part of the state machine's meaning: servers of one cluster must agree
// on them.
const (
	NamedRetention = 10 * time.Minute
	RecordsKept    = 1 << 18
	// expireRows is how many rows of each kind an entry may drop: more than it adds, so that a
	// backlog shrinks.
	expireRows = 4
)

const requests = registryv1.Table_TABLE_REQUEST

// applied is a command with a request id, and its result.
type applied struct {
	key    requestKey
	cmd    *registryv1.Command
	result *registryv1.CommandResult
}

// records knows which log entry has the record of each idempotency key that is kept. It holds
// nothing that the rows of TABLE_REQUEST do not say, and exists so that a new request costs no look
// into the store.
type records struct {
	mu            sync.RWMutex
	named, minted queue
}

func newRecords() records {
	return records{named: newQueue("", NamedRetention), minted: newQueue("m", requestid.Retention)}
}

// load replaces what is known by what is stored.
func (r *records) load(from record.Reader) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := newRecords()
	r.named, r.minted = fresh.named, fresh.minted
	return record.Each(from, requests, record.ScanOptions{}, func(row *registryv1.Record) error {
		outcomes := &registryv1.RequestOutcomes{}
		if err := record.Decode(row, outcomes); err != nil {
			return err
		}
		q := &r.named
		if strings.HasPrefix(row.GetKey(), r.minted.prefix) {
			q = &r.minted
		}
		keys := make([]requestKey, 0, len(outcomes.GetOutcomes()))
		for _, o := range outcomes.GetOutcomes() {
			keys = append(keys, keyOf(idOf(o)))
		}
		q.add(row.GetModifyIndex(), row.GetOriginTime().AsTime(), keys)
		return nil
	})
}

// find returns the index of the entry with the record of a key, and the key of its row.
func (r *records) find(key requestKey) (index uint64, row string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, q := range [...]*queue{&r.named, &r.minted} {
		if index, ok := q.index[key]; ok {
			return index, q.row(index), true
		}
	}
	return 0, "", false
}

// recall returns the result of a request that was applied before, nil if it was not.
func (r *records) recall(tx Tx, key requestKey, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	id := cmd.GetRequestId()
	index, rowKey, ok := r.find(key)
	if !ok {
		return nil, nil
	}
	row, err := tx.Get(requests, rowKey)
	if err != nil {
		return nil, err
	}
	outcomes := &registryv1.RequestOutcomes{}
	if err := record.Decode(row, outcomes); err != nil {
		return nil, err
	}
	for _, o := range outcomes.GetOutcomes() {
		if idOf(o) == id {
			if reused(o.GetDigest(), cmd) {
				return refuse(index), nil
			}
			return expand(o, cmd, index, row.GetOriginTime()), nil
		}
	}
	return nil, nil
}

// FailedReused is the reason of a command whose request id was used for something else.
const FailedReused = "REQUEST_ID_REUSED"

// reused reports whether a command asks for something else than what was done under its request id.
func reused(before uint64, cmd *registryv1.Command) bool {
	return before != 0 && cmd.GetDigest() != 0 && before != cmd.GetDigest()
}

// refuse returns the result of a command whose request id stands for what was done at an index.
func refuse(index uint64) *registryv1.CommandResult {
	return &registryv1.CommandResult{Index: index, FailedReason: FailedReused}
}

// outcomeOf returns the record of a request.
func outcomeOf(d applied) *registryv1.RequestOutcome {
	cmd, result := d.cmd, d.result
	o := &registryv1.RequestOutcome{Epoch: cmd.GetEpoch(), Digest: cmd.GetDigest()}
	if uuid.UUID(d.key).String() == cmd.GetRequestId() {
		o.Uuid = d.key[:]
	} else {
		o.RequestId = cmd.GetRequestId()
	}
	n := len(result.GetWritten())
	if !onlyPuts(cmd) || result.GetFailedReason() != "" || n != len(cmd.GetOperations()) {
		o.Result = Answer(result)
		return o
	}
	indexes := make([]uint64, 0, 2*n)
	for _, row := range result.GetWritten() {
		indexes = append(indexes, row.GetCreateIndex())
	}
	for _, row := range result.GetWritten() {
		indexes = append(indexes, row.GetVersion())
	}
	o.Created, o.Versions = indexes[:n:n], indexes[n:]
	return o
}

// encodeOutcomes returns the value of a row: the same bytes on every server.
func encodeOutcomes(done []applied) ([]byte, error) {
	outcomes := &registryv1.RequestOutcomes{Outcomes: make([]*registryv1.RequestOutcome, len(done))}
	maps := false
	for i, d := range done {
		outcomes.Outcomes[i] = outcomeOf(d)
		maps = maps || outcomes.Outcomes[i].GetResult() != nil
	}
	if maps {
		return record.Encode(outcomes) // In one order.
	}
	return outcomes.MarshalVT() // Most are of puts alone, which have no maps.
}

// onlyPuts reports whether a command's outcome is no more than the rows it put.
func onlyPuts(cmd *registryv1.Command) bool {
	return len(cmd.GetOperations()) > 0 && !cmd.GetDetailed() &&
		!slices.ContainsFunc(cmd.GetOperations(), func(op *registryv1.Operation) bool { return op.GetPut() == nil })
}

// expand is outcome's inverse, for the same command made again.
func expand(o *registryv1.RequestOutcome, cmd *registryv1.Command, index uint64, at *timestamppb.Timestamp) *registryv1.CommandResult {
	if o.GetResult() != nil {
		return o.GetResult()
	}
	result := &registryv1.CommandResult{Index: index, Changed: uint64(len(o.GetCreated()))}
	for i, op := range cmd.GetOperations() {
		if put := op.GetPut(); put != nil && i < len(o.GetCreated()) {
			row := bare(put)
			originate(row, index, o.GetEpoch(), at)
			row.CreateIndex, row.ModifyIndex, row.Version = o.GetCreated()[i], index, o.GetVersions()[i]
			result.Written = append(result.Written, row)
		}
	}
	return result
}

func idOf(o *registryv1.RequestOutcome) string {
	if len(o.GetUuid()) == len(uuid.UUID{}) {
		return uuid.UUID(o.GetUuid()).String()
	}
	return o.GetRequestId()
}

// remember stores the records of the commands of an entry, named and minted keys apart, and forgets
// what is too old or too much.
func (r *records) remember(tx Tx, index uint64, at *timestamppb.Timestamp, done []applied) error {
	named := slices.DeleteFunc(slices.Clone(done), func(d applied) bool { return d.cmd.GetMinted() })
	minted := slices.DeleteFunc(done, func(d applied) bool { return !d.cmd.GetMinted() })
	return cmp.Or(r.store(tx, &r.named, index, at, named), r.store(tx, &r.minted, index, at, minted))
}

func (r *records) store(tx Tx, q *queue, index uint64, at *timestamppb.Timestamp, done []applied) error {
	if len(done) > 0 {
		value, err := encodeOutcomes(done)
		if err != nil {
			return fmt.Errorf("idempotency records of entry %d: %w", index, err)
		}
		keys := make([]requestKey, len(done))
		for i := range done {
			keys[i] = done[i].key
		}
		r.mu.Lock()
		q.add(index, at.AsTime(), keys)
		r.mu.Unlock()
		if err := tx.Put(&registryv1.Record{
			Table: requests, Key: q.row(index), Value: value,
			CreateIndex: index, ModifyIndex: index, Version: 1, OriginTime: at,
		}); err != nil {
			return err
		}
	}
	r.mu.Lock()
	expired := q.expire(at.AsTime())
	r.mu.Unlock()
	for _, index := range expired {
		if err := tx.Drop(requests, q.row(index)); err != nil {
			return err
		}
	}
	return nil
}
