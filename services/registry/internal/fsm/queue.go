package fsm

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// requestKey stands for a request id. Ids are UUIDs as a rule; others are hashed. A row holds the
// ids themselves, so two that fell on one key would be told apart.
type requestKey [16]byte

func keyOf(id string) requestKey {
	if parsed, err := uuid.Parse(id); err == nil {
		return requestKey(parsed)
	}
	sum := sha256.Sum256([]byte(id))
	return requestKey(sum[:16])
}

// queue holds the idempotency keys of one kind in the order in which they were applied, oldest
// first. There are up to RecordsKept, and no pointers that the collector would follow. Not safe for
// concurrent use.
type queue struct {
	// prefix begins the keys of the rows with the records of this kind.
	prefix    string
	retention time.Duration
	// index is that of the entry which has the record of a key; of the last one, if two ids fell on
	// it.
	index   map[requestKey]uint64
	entries []entry
	keys    []requestKey
}

// entry is a log entry, and how many keys of the queue are its.
type entry struct {
	index    uint64
	unixNano int64
	keys     int
}

func newQueue(prefix string, retention time.Duration) queue {
	return queue{prefix: prefix, retention: retention, index: map[requestKey]uint64{}}
}

// row returns the key of the row with the records of an entry.
func (q *queue) row(index uint64) string { return fmt.Sprintf("%s%016x", q.prefix, index) }

// add appends an entry and its keys.
func (q *queue) add(index uint64, at time.Time, keys []requestKey) {
	q.entries = append(q.entries, entry{index, at.UnixNano(), len(keys)})
	q.keys = append(q.keys, keys...)
	for _, key := range keys {
		q.index[key] = index
	}
}

// expire removes the oldest entries, expireRows at most, as long as they are older than the
// retention or there are too many keys, and returns their indexes.
func (q *queue) expire(now time.Time) (expired []uint64) {
	horizon := now.Add(-q.retention).UnixNano()
	for len(expired) < expireRows && len(q.entries) > 0 && (len(q.keys) > RecordsKept || q.entries[0].unixNano < horizon) {
		oldest := q.entries[0]
		for _, key := range q.keys[:oldest.keys] {
			if q.index[key] == oldest.index {
				delete(q.index, key)
			}
		}
		q.entries, q.keys = q.entries[1:], q.keys[oldest.keys:]
		expired = append(expired, oldest.index)
	}
	return expired
}
