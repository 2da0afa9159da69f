package badgerstore

import (
	"cmp"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

const (
	cacheShards = 16
	// cachedRowBytes keeps a few large values from pushing out everything else.
	cachedRowBytes = 8 << 10
	// rowOverhead is about what a decoded row costs beside its key and value.
	rowOverhead = 320
)

// rowCache keeps decoded rows as last committed, and that there is no row, so that reading or
// overwriting a row in use costs neither a search nor a decoding. A read of a key that names no
// scope asks for two rows, of which one is not there as a rule. Cached rows are shared: nobody may
// change them.
type rowCache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
	budget int
	// committing is the last index whose rows are here or about to be. It moves before the rows do,
	// so that a reader of an older state never leaves what it found behind for readers of the new
	// one.
	committing atomic.Uint64
}

// cacheShard evicts as SIEVE does (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024): a hand
// goes from the oldest cell to the newest, again and again, and takes the first one that nobody
// asked for since it last came by. Asking for a row moves nothing, and a row in use is two objects
// for the collector: itself and its cell.
type cacheShard struct {
	mu             sync.Mutex
	cells          byRow[*cell]
	oldest, newest *cell
	hand           *cell
	bytes          int
}

// cell is what a row is now. It stays in its place when the row changes.
type cell struct {
	id rowID
	cached
	asked        bool
	older, newer *cell
}

type cached struct {
	// row is nil when there is none.
	row *registryv1.Record
	// since is the index from which on it is like that.
	since uint64
}

func newRowCache(budget int64, index uint64) *rowCache {
	c := &rowCache{seed: maphash.MakeSeed(), budget: int(budget) / cacheShards}
	for i := range c.shards {
		c.shards[i].reset()
	}
	c.committing.Store(index)
	return c
}

func (s *cacheShard) reset() {
	s.cells, s.oldest, s.newest, s.hand, s.bytes = byRow[*cell]{}, nil, nil, nil, 0
}

func rowBytes(id rowID, r *registryv1.Record) int {
	return len(id.key) + len(r.GetValue()) + rowOverhead
}

func (c *rowCache) shard(id rowID) *cacheShard {
	return &c.shards[maphash.String(c.seed, id.key)%cacheShards]
}

// get returns a row as of an index, nil when there is none, and whether that is known here.
func (c *rowCache) get(id rowID, index uint64) (row *registryv1.Record, ok bool) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.cells.get(id)
	if !ok || known.since > index {
		return nil, false
	}
	known.asked = true
	return known.row, true
}

// fill keeps a row that was read as of an index, nil when there was none, unless something has been
// committed since.
func (c *rowCache) fill(id rowID, r *registryv1.Record, index uint64) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.committing.Load() != index {
		return
	}
	since := index
	if r != nil {
		since = r.GetModifyIndex()
	}
	s.put(id, cached{r, since}, c.budget)
}

// commit takes in the rows of a batch, before anyone may read them.
func (c *rowCache) commit(index uint64, changes []*change) {
	c.committing.Store(index)
	for _, change := range changes {
		if change.id.table == registryv1.Table_TABLE_REQUEST {
			continue // Idempotency records are never kept.
		}
		s := c.shard(change.id)
		s.mu.Lock()
		if !s.put(change.id, cached{change.row, change.index}, c.budget) {
			s.drop(change.id)
		}
		s.mu.Unlock()
	}
}

// clear forgets everything: the state is another one, as of index.
func (c *rowCache) clear(index uint64) {
	c.committing.Store(index)
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.reset()
		s.mu.Unlock()
	}
}

// put keeps a row if it is of a kind and size that is kept. It runs under mu.
func (s *cacheShard) put(id rowID, now cached, budget int) bool {
	size := rowBytes(id, now.row)
	if id.table == registryv1.Table_TABLE_REQUEST || size > cachedRowBytes {
		return false // Idempotency records are hardly ever read.
	}
	if known, ok := s.cells.get(id); ok {
		s.bytes -= rowBytes(id, known.row)
		known.cached, known.asked = now, true
	} else {
		s.add(id, now)
	}
	s.bytes += size
	for s.bytes > budget {
		s.evict()
	}
	return true
}

func (s *cacheShard) add(id rowID, now cached) {
	id.key = strings.Clone(id.key) // What it is part of goes when the row does.
	fresh := &cell{id: id, cached: now, older: s.newest}
	if s.newest != nil {
		s.newest.newer = fresh
	} else {
		s.oldest = fresh
	}
	s.newest = fresh
	s.cells.set(id, fresh)
}

// evict drops one of at least one cells.
func (s *cacheShard) evict() {
	at := cmp.Or(s.hand, s.oldest)
	for ; at.asked; at = cmp.Or(at.newer, s.oldest) {
		at.asked = false
	}
	s.hand = at
	s.drop(at.id)
}

func (s *cacheShard) drop(id rowID) {
	c, ok := s.cells.get(id)
	if !ok {
		return
	}
	s.cells.drop(id)
	s.bytes -= rowBytes(id, c.row)
	if s.hand == c {
		s.hand = c.newer
	}
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		s.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		s.newest = c.older
	}
}
