package badgerstore

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

const (
	cacheShards = 16
	// cachedRowBytes keeps a few large values from pushing out everything else.
	cachedRowBytes = 8 << 10
	// rowOverhead is about what a decoded row costs beside its key and value.
	rowOverhead = 320
)

// rowCache keeps decoded rows as last committed, and that there is no row, so that reading or overwriting a row in use costs
// neither a search nor a decoding. A read of a key that names no scope asks for two rows, of which one is not there as a rule.
// Cached rows are shared: nobody may change them.
type rowCache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
	budget int
	// committing is the last index whose rows are here or about to be. It moves before the rows do, so that
	// a reader of an older state never leaves what it found behind for readers of the new one.
	committing atomic.Uint64
}

type cacheShard struct {
	mu    sync.Mutex
	rows  *simplelru.LRU[rowID, *cached]
	bytes int
}

// cached is what a row is now. It stays in its place in the cache when the row changes.
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
	s.bytes = 0
	s.rows, _ = simplelru.NewLRU(math.MaxInt, func(id rowID, c *cached) { s.bytes -= rowBytes(id, c.row) }) // It refuses only sizes below one.
}

func rowBytes(id rowID, r *registryv1.Record) int {
	return len(id.key) + len(r.GetValue()) + rowOverhead
}

func (c *rowCache) shard(id rowID) *cacheShard {
	return &c.shards[maphash.String(c.seed, id.key)%cacheShards]
}

// get answers a row as of an index, nil when there is none, and whether that is known here.
func (c *rowCache) get(id rowID, index uint64) (row *registryv1.Record, ok bool) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.rows.Get(id)
	if !ok || known.since > index {
		return nil, false
	}
	return known.row, true
}

// fill keeps a row that was read as of an index, nil when there was none, unless something has been committed since.
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
			continue // It is never kept.
		}
		s := c.shard(change.id)
		s.mu.Lock()
		if !s.put(change.id, cached{change.row, change.index}, c.budget) {
			s.rows.Remove(change.id)
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
		return false // Outcomes of requests are hardly ever read.
	}
	if known, ok := s.rows.Get(id); ok {
		s.bytes -= rowBytes(id, known.row)
		*known = now
	} else {
		s.rows.Add(id, &now)
	}
	s.bytes += size
	for s.bytes > budget {
		s.rows.RemoveOldest()
	}
	return true
}
