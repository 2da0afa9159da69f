package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
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
	mu   sync.RWMutex
	rows map[requestKey]uint64
	// oldest first.
	order []remembered
	count int
}

// requestKey stands for a request id. Ids are UUIDs as a rule; others are hashed. A row holds the ids
// themselves, so two that fell on one key would be told apart.
type requestKey [16]byte

type remembered struct {
	index uint64
	time  time.Time
	keys  []requestKey
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
	m.rows, m.order, m.count = map[requestKey]uint64{}, nil, 0
	var failure error
	err := r.Scan(requests, record.ScanOptions{}, func(row *registryv1.Record) bool {
		outcomes := &registryv1.RequestOutcomes{}
		if failure = proto.Unmarshal(row.GetValue(), outcomes); failure != nil {
			return false
		}
		keys := make([]requestKey, len(outcomes.GetOutcomes()))
		for i, o := range outcomes.GetOutcomes() {
			keys[i] = keyOf(idOf(o))
		}
		m.add(row.GetModifyIndex(), row.GetOriginTime().AsTime(), keys)
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

// add runs under mu.
func (m *memory) add(index uint64, at time.Time, keys []requestKey) {
	for _, key := range keys {
		m.rows[key] = index
	}
	m.order = append(m.order, remembered{index, at, keys})
	m.count += len(keys)
}

func (m *memory) find(key requestKey) (uint64, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	index, ok := m.rows[key]
	return index, ok
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

// outcome writes down what a request was answered.
func outcome(d *answered) *registryv1.RequestOutcome {
	cmd, result := d.cmd, d.result
	o := &registryv1.RequestOutcome{Epoch: cmd.GetEpoch(), Digest: cmd.GetDigest()}
	if usual(d.key, cmd.GetRequestId()) {
		o.Uuid = d.key[:]
	} else {
		o.RequestId = cmd.GetRequestId()
	}
	if !onlyPuts(cmd) || result.GetFailedReason() != "" || len(result.GetWritten()) != len(cmd.GetOperations()) {
		o.Result = Answer(result)
		return o
	}
	n := len(result.GetWritten())
	both := make([]uint64, 2*n)
	o.Created, o.Versions = both[:n:n], both[n:]
	for i, row := range result.GetWritten() {
		o.Created[i], o.Versions[i] = row.GetCreateIndex(), row.GetVersion()
	}
	return o
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
	outcomes := &registryv1.RequestOutcomes{Outcomes: make([]*registryv1.RequestOutcome, len(done))}
	keys := make([]requestKey, len(done))
	for i := range done {
		outcomes.Outcomes[i], keys[i] = outcome(&done[i]), done[i].key
	}
	encode := outcomes.MarshalVT
	if slices.ContainsFunc(outcomes.GetOutcomes(), func(o *registryv1.RequestOutcome) bool { return o.GetResult() != nil }) {
		encode = func() ([]byte, error) { return proto.MarshalOptions{Deterministic: true}.Marshal(outcomes) } // Maps in one order.
	}
	value, err := encode()
	if err != nil {
		return fmt.Errorf("encode the outcomes of entry %d: %w", index, err)
	}
	m.mu.Lock()
	m.add(index, at.AsTime(), keys)
	m.mu.Unlock()
	return tx.Put(&registryv1.Record{
		Table: requests, Key: rowOf(index), Value: value,
		CreateIndex: index, ModifyIndex: index, Version: 1, OriginTime: at,
	})
}

// forget drops what is too old or too much.
func (m *memory) forget(tx Tx, now *timestamppb.Timestamp) error {
	horizon := now.AsTime().Add(-RequestRetention)
	m.mu.Lock()
	defer m.mu.Unlock()
	for range forgetRows {
		if len(m.order) == 0 || m.count <= RequestsKept && !m.order[0].time.Before(horizon) {
			return nil
		}
		oldest := m.order[0]
		m.order = m.order[1:]
		m.count -= len(oldest.keys)
		for _, key := range oldest.keys {
			if m.rows[key] == oldest.index {
				delete(m.rows, key)
			}
		}
		if err := tx.Drop(requests, rowOf(oldest.index)); err != nil {
			return err
		}
	}
	return nil
}
