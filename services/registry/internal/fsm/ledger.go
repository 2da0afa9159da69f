package fsm

import "hash/maphash"

// ledger numbers requests in the order they came, and finds the number of one. There are up to a quarter of a million and always the
// latest: a map of them beside a list of their order takes three times the memory, with what both outgrew. None of it holds pointers that
// a collection would follow, but those to chunks.
type ledger struct {
	seed maphash.Seed
	// chunks hold the keys, oldest first, but for the first ones of the first chunk, which are gone.
	chunks      []*[chunkKeys]requestKey
	gone, count int
	// first is the number of the oldest key.
	first uint64
	// slots is a hash table with linear probing (Knuth, The Art of Computer Programming 3, 6.4, algorithms L and R). It holds what slotOf answers,
	// and 0 where nothing is; its size is a power of two.
	slots []uint32
}

// requestKey stands for a request id. Ids are UUIDs as a rule; others are hashed. A row holds the ids
// themselves, so two that fell on one key would be told apart.
type requestKey [16]byte

const (
	chunkKeys  = 1 << 12
	leastSlots = 1 << 10
	// numberSpan is above how far apart two numbers may be.
	numberSpan = 1<<32 - 1
)

func newLedger() ledger { return ledger{seed: maphash.MakeSeed(), slots: make([]uint32, leastSlots)} }

// next is the number that the next key gets.
func (l *ledger) next() uint64 { return l.first + uint64(l.count) } //nolint:gosec // a length

// key answers the key of a number.
func (l *ledger) key(number uint64) requestKey {
	at := int(number-l.first) + l.gone //nolint:gosec // less than count
	return l.chunks[at/chunkKeys][at%chunkKeys]
}

// slotOf answers what stands for a number, never 0.
func slotOf(number uint64) uint32 { return uint32(number%numberSpan) + 1 }

// numberOf is slotOf's inverse.
func (l *ledger) numberOf(slot uint32) uint64 {
	return l.first + (uint64(slot-1)+numberSpan-l.first%numberSpan)%numberSpan
}

func (l *ledger) home(key requestKey) int {
	return int(maphash.Bytes(l.seed, key[:]) & uint64(len(l.slots)-1)) //nolint:gosec // less than their number
}

func (l *ledger) after(at int) int { return (at + 1) & (len(l.slots) - 1) }

// seek answers where a key is among the slots, or where it would be.
func (l *ledger) seek(key requestKey) (at int, found bool) {
	for at = l.home(key); l.slots[at] != 0; at = l.after(at) {
		if l.key(l.numberOf(l.slots[at])) == key {
			return at, true
		}
	}
	return at, false
}

// find answers the number of a key; of the last one, if it came more than once.
func (l *ledger) find(key requestKey) (uint64, bool) {
	at, found := l.seek(key)
	if !found {
		return 0, false
	}
	return l.numberOf(l.slots[at]), true
}

// add gives a key the next number.
func (l *ledger) add(key requestKey) {
	at := l.gone + l.count
	if at == len(l.chunks)*chunkKeys {
		l.chunks = append(l.chunks, new([chunkKeys]requestKey))
	}
	l.chunks[at/chunkKeys][at%chunkKeys] = key
	l.count++
	if 3*l.count > 2*len(l.slots) {
		l.grow()
		return
	}
	l.place(l.next()-1, key)
}

func (l *ledger) place(number uint64, key requestKey) {
	at, _ := l.seek(key)
	l.slots[at] = slotOf(number)
}

func (l *ledger) grow() {
	l.slots = make([]uint32, 2*len(l.slots))
	for number := l.first; number < l.next(); number++ {
		l.place(number, l.key(number))
	}
}

// forget drops the oldest n keys.
func (l *ledger) forget(n int) {
	for range n {
		key := l.key(l.first)
		if at, found := l.seek(key); found && l.slots[at] == slotOf(l.first) {
			l.free(at)
		}
		l.first, l.gone, l.count = l.first+1, l.gone+1, l.count-1
		if l.gone == chunkKeys {
			l.chunks, l.gone = l.chunks[1:], 0
		}
	}
}

// free empties a slot and closes the gap it leaves in the runs that go over it.
func (l *ledger) free(gap int) {
	mask := len(l.slots) - 1
	for at := l.after(gap); l.slots[at] != 0; at = l.after(at) {
		home := l.home(l.key(l.numberOf(l.slots[at])))
		// It may stay unless the gap lies between its home and where it is.
		if (at-home)&mask >= (at-gap)&mask {
			l.slots[gap] = l.slots[at]
			gap = at
		}
	}
	l.slots[gap] = 0
}
