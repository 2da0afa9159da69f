package fsm

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
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

	// one, indexes and encoded are what records are encoded in, one after the other; only remember
	// uses them.
	one     registryv1.RequestOutcome
	indexes []uint64
	encoded []byte
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

// outcome returns the record of a request. It is overwritten by the next one.
func (r *records) outcome(d *applied) *registryv1.RequestOutcome {
	cmd, result, o := d.cmd, d.result, &r.one
	o.Reset()
	o.Epoch, o.Digest = cmd.GetEpoch(), cmd.GetDigest()
	if usual(d.key, cmd.GetRequestId()) {
		o.Uuid = d.key[:]
	} else {
		o.RequestId = cmd.GetRequestId()
	}
	if !onlyPuts(cmd) || result.GetFailedReason() != "" || len(result.GetWritten()) != len(cmd.GetOperations()) {
		o.Result = Answer(result)
		return o
	}
	r.indexes = r.indexes[:0]
	for _, row := range result.GetWritten() {
		r.indexes = append(r.indexes, row.GetCreateIndex())
	}
	for _, row := range result.GetWritten() {
		r.indexes = append(r.indexes, row.GetVersion())
	}
	n := len(result.GetWritten())
	o.Created, o.Versions = r.indexes[:n:n], r.indexes[n:]
	return o
}

// outcomesField is that of RequestOutcomes.
const outcomesField protowire.Number = 1

// encode returns an encoded RequestOutcomes. Records are encoded one by one: the whole would be
// built only to be dropped.
func (r *records) encode(done []applied) ([]byte, error) {
	r.encoded = r.encoded[:0]
	for i := range done {
		o := r.outcome(&done[i])
		r.encoded = protowire.AppendTag(r.encoded, outcomesField, protowire.BytesType)
		if o.GetResult() != nil {
			text, err := proto.MarshalOptions{Deterministic: true}.Marshal(o) // Maps in one order.
			if err != nil {
				return nil, fmt.Errorf("encode: %w", err)
			}
			r.encoded = protowire.AppendBytes(r.encoded, text)
			continue
		}
		size := o.SizeVT()
		r.encoded = protowire.AppendVarint(r.encoded, uint64(size)) //nolint:gosec // a length
		start := len(r.encoded)
		r.encoded = slices.Grow(r.encoded, size)[:start+size]
		if _, err := o.MarshalToSizedBufferVT(r.encoded[start:]); err != nil {
			return nil, fmt.Errorf("encode: %w", err)
		}
	}
	return slices.Clone(r.encoded), nil
}

// usual reports whether an id is a UUID as usually written, and key what it says.
func usual(key requestKey, id string) bool {
	const usualLength = 36
	if len(id) != usualLength {
		return false
	}
	var text [usualLength]byte
	hex.Encode(text[:8], key[:4])
	hex.Encode(text[9:13], key[4:6])
	hex.Encode(text[14:18], key[6:8])
	hex.Encode(text[19:23], key[8:10])
	hex.Encode(text[24:], key[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:]) == id
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
		value, err := r.encode(done)
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
