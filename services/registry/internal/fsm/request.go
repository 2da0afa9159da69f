package fsm

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// How long the outcome of a request id is remembered: RequestRetention by the leaders' clocks, but no
// more than the last RequestsKept of them. Both are part of the state machine's meaning: servers of one
// cluster must agree on them.
const (
	RequestRetention = 10 * time.Minute
	RequestsKept     = 1 << 18
	// forgetRows is how many rows an entry may drop: more than it adds, so that a backlog shrinks.
	forgetRows = 4
)

const requests = registryv1.Table_TABLE_REQUEST

// memory knows where the outcome of each remembered request is. It holds nothing that the rows of
// TABLE_REQUEST do not say, and exists so that a new request costs no look into the store.
type memory struct {
	mu       sync.RWMutex
	requests ledger
	// order has the entries, oldest first. There are many and none holds a pointer: the collector need not look.
	order []remembered

	// one, indexes and encoded are what outcomes are written down in, one after the other; only remember uses them.
	one     registryv1.RequestOutcome
	indexes []uint64
	encoded []byte
}

// remembered is an entry of the log, and the number of its first request.
type remembered struct {
	index    uint64
	unixNano int64
	first    uint64
}

// answered is a command with a request id and what it was answered.
type answered struct {
	key    requestKey
	cmd    *registryv1.Command
	result *registryv1.CommandResult
}

func keyOf(id string) requestKey {
	if parsed, err := uuid.Parse(id); err == nil {
		return requestKey(parsed)
	}
	sum := sha256.Sum256([]byte(id))
	return requestKey(sum[:16])
}

func rowOf(index uint64) string { return fmt.Sprintf("%016x", index) }

// load replaces the memory by what is stored.
func (m *memory) load(r record.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests, m.order = newLedger(), nil
	var failure error
	err := r.Scan(requests, record.ScanOptions{}, func(row *registryv1.Record) bool {
		outcomes := &registryv1.RequestOutcomes{}
		if failure = proto.Unmarshal(row.GetValue(), outcomes); failure != nil {
			return false
		}
		m.note(row.GetModifyIndex(), row.GetOriginTime())
		for _, o := range outcomes.GetOutcomes() {
			m.requests.add(keyOf(idOf(o)))
		}
		return true
	})
	if err == nil {
		err = failure
	}
	if err != nil {
		return fmt.Errorf("load the remembered requests: %w", err)
	}
	return nil
}

// note remembers an entry, whose requests are added next. It runs under mu.
func (m *memory) note(index uint64, at *timestamppb.Timestamp) {
	m.order = append(m.order, remembered{index, at.AsTime().UnixNano(), m.requests.next()})
}

// find answers the index of the entry with a request.
func (m *memory) find(key requestKey) (uint64, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	number, ok := m.requests.find(key)
	if !ok {
		return 0, false
	}
	at, exact := slices.BinarySearchFunc(m.order, number, func(r remembered, number uint64) int { return cmp.Compare(r.first, number) })
	if !exact {
		at--
	}
	return m.order[at].index, true
}

// recall answers the outcome of a request that was applied before, nil if it was not.
func (m *memory) recall(tx Tx, key requestKey, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	id := cmd.GetRequestId()
	index, ok := m.find(key)
	if !ok {
		return nil, nil
	}
	row, err := tx.Get(requests, rowOf(index))
	if err != nil {
		return nil, err
	}
	outcomes := &registryv1.RequestOutcomes{}
	if err := proto.Unmarshal(row.GetValue(), outcomes); err != nil {
		return nil, fmt.Errorf("decode the outcomes of entry %d: %w", index, err)
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

// reused says whether a command asks for something else than what was done under its request id.
func reused(before uint64, cmd *registryv1.Command) bool {
	return before != 0 && cmd.GetDigest() != 0 && before != cmd.GetDigest()
}

// refuse answers a command whose request id stands for what was done at an index.
func refuse(index uint64) *registryv1.CommandResult {
	return &registryv1.CommandResult{Index: index, FailedReason: FailedReused}
}

// outcome writes down what a request was answered. It is overwritten by the next one.
func (m *memory) outcome(d *answered) *registryv1.RequestOutcome {
	cmd, result, o := d.cmd, d.result, &m.one
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
	m.indexes = m.indexes[:0]
	for _, row := range result.GetWritten() {
		m.indexes = append(m.indexes, row.GetCreateIndex())
	}
	for _, row := range result.GetWritten() {
		m.indexes = append(m.indexes, row.GetVersion())
	}
	n := len(result.GetWritten())
	o.Created, o.Versions = m.indexes[:n:n], m.indexes[n:]
	return o
}

// outcomesField is that of RequestOutcomes.
const outcomesField protowire.Number = 1

// encode answers a RequestOutcomes, encoded one by one: as a whole it would be built only to be dropped.
func (m *memory) encode(done []answered) ([]byte, error) {
	m.encoded = m.encoded[:0]
	for i := range done {
		o := m.outcome(&done[i])
		m.encoded = protowire.AppendTag(m.encoded, outcomesField, protowire.BytesType)
		if o.GetResult() != nil {
			text, err := proto.MarshalOptions{Deterministic: true}.Marshal(o) // Maps in one order.
			if err != nil {
				return nil, fmt.Errorf("encode: %w", err)
			}
			m.encoded = protowire.AppendBytes(m.encoded, text)
			continue
		}
		size := o.SizeVT()
		m.encoded = protowire.AppendVarint(m.encoded, uint64(size)) //nolint:gosec // a length
		start := len(m.encoded)
		m.encoded = slices.Grow(m.encoded, size)[:start+size]
		if _, err := o.MarshalToSizedBufferVT(m.encoded[start:]); err != nil {
			return nil, fmt.Errorf("encode: %w", err)
		}
	}
	return slices.Clone(m.encoded), nil
}

// usual says whether an id is a UUID as usually written, and key what it says.
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

// onlyPuts says whether a command's outcome is no more than the rows it put.
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

// remember writes down the outcomes of an entry.
func (m *memory) remember(tx Tx, index uint64, at *timestamppb.Timestamp, done []answered) error {
	if len(done) == 0 {
		return nil
	}
	value, err := m.encode(done)
	if err != nil {
		return fmt.Errorf("outcomes of entry %d: %w", index, err)
	}
	m.mu.Lock()
	m.note(index, at)
	for i := range done {
		m.requests.add(done[i].key)
	}
	m.mu.Unlock()
	return tx.Put(&registryv1.Record{
		Table: requests, Key: rowOf(index), Value: value,
		CreateIndex: index, ModifyIndex: index, Version: 1, OriginTime: at,
	})
}

// forget drops what is too old or too much.
func (m *memory) forget(tx Tx, now *timestamppb.Timestamp) error {
	horizon := now.AsTime().Add(-RequestRetention).UnixNano()
	m.mu.Lock()
	defer m.mu.Unlock()
	for range forgetRows {
		if len(m.order) == 0 || m.requests.count <= RequestsKept && m.order[0].unixNano >= horizon {
			return nil
		}
		oldest := m.order[0]
		m.order = m.order[1:]
		end := m.requests.next()
		if len(m.order) > 0 {
			end = m.order[0].first
		}
		m.requests.forget(int(end - oldest.first)) //nolint:gosec // a count of requests in memory
		if err := tx.Drop(requests, rowOf(oldest.index)); err != nil {
			return err
		}
	}
	return nil
}
