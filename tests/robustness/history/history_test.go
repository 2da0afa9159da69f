package history_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/robustness/history"
)

const limit = 5 * time.Second

func set(client int, value string, modify uint64, call, end time.Duration) history.Operation {
	return history.Operation{Client: client, Kind: history.Set, Key: "k", Value: value, Fate: history.OK, Modify: modify, Call: call, Return: end}
}

func get(mode history.Mode, value string, modify, index uint64, call, end time.Duration) history.Operation {
	return history.Operation{
		Client: 9, Kind: history.Get, Mode: mode, Key: "k", Server: "a", Value: value, Fate: history.OK, Found: value != "",
		Modify: modify, Index: index, Call: call, Return: end,
	}
}

func remove(deleted uint64, call, end time.Duration) history.Operation {
	return history.Operation{Kind: history.Delete, Key: "k", Fate: history.OK, Modify: deleted, Call: call, Return: end}
}

func with(o history.Operation, change func(*history.Operation)) history.Operation {
	change(&o)
	return o
}

func cas(index uint64) func(*history.Operation) {
	return func(o *history.Operation) { o.CAS = &index }
}

func fate(f history.Fate) func(*history.Operation) {
	return func(o *history.Operation) { o.Fate = f; o.Modify = 0 }
}

// Each history has one violation, and the judge that must see it; or none, and both must let it
// pass.
func TestTheJudgesFindWhatIsWrongAndNothingElse(t *testing.T) {
	const fresh, old = history.Linearizable, history.Stale
	message := func(index uint64, events ...history.Event) history.Message {
		return history.Message{Events: events, Index: index, Synced: true, At: 100}
	}
	event := func(value string, modify uint64) history.Event {
		return history.Event{Key: "k", Value: value, Modify: modify}
	}
	for name, c := range map[string]struct {
		operations []history.Operation
		watch      []history.Message
		from       uint64
		// What is violated: the order of writes and linearizable reads, that of writes and stale
		// ones, exactness.
		order, stale, exactness bool
	}{
		"reads follow writes": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), get(fresh, "a", 5, 5, 20, 30), set(2, "b", 7, 25, 40), get(fresh, "a", 5, 6, 26, 39), get(fresh, "b", 7, 7, 41, 50),
			remove(8, 51, 55), get(fresh, "", 0, 9, 60, 61),
		}},
		"a stale read answers an old state": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), get(old, "a", 5, 5, 20, 30), get(old, "b", 6, 6, 31, 32),
		}},
		"a stale read finds nothing where something was not yet": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), get(old, "", 0, 4, 20, 30), get(old, "a", 5, 5, 31, 32), remove(6, 40, 41), get(old, "a", 5, 5, 50, 51), get(old, "", 0, 6, 52, 53),
		}},
		"a stale read finds nothing after something": {stale: true, exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), get(old, "a", 5, 5, 20, 30), get(old, "", 0, 5, 31, 32),
		}},
		"stale reads of two servers": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), get(old, "b", 6, 6, 20, 30), with(get(old, "a", 5, 5, 31, 32), func(o *history.Operation) { o.Server = "b" }),
		}},
		"stale reads of two lives": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), get(old, "b", 6, 6, 20, 30), with(get(old, "a", 5, 5, 31, 32), func(o *history.Operation) { o.Life = 1 }),
		}},
		"stale reads at once": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), get(old, "b", 6, 6, 20, 30), get(old, "a", 5, 5, 25, 35),
		}},
		"a stale read answers what is written later": {stale: true, exactness: true, operations: []history.Operation{
			get(old, "a", 5, 5, 0, 1), set(1, "a", 5, 10, 20),
		}},
		"a stale read answers what nobody wrote": {stale: true, exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), get(old, "x", 5, 5, 20, 30),
		}},
		"a linearizable read answers an old state": {order: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), get(fresh, "a", 5, 5, 20, 30),
		}},
		"a read goes back": {order: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 50), get(fresh, "b", 6, 6, 20, 21), get(fresh, "a", 5, 5, 30, 31),
		}},
		"a lost update": {order: true, exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(2, "b", 6, 11, 12), get(fresh, "a", 5, 8, 20, 30),
		}},
		"an acknowledged write disappears": {order: true, exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), get(fresh, "", 0, 8, 20, 30),
		}},
		"a read that does not match its own index": {exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), get(old, "a", 5, 6, 20, 30),
		}},
		"a read from the future": {exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), get(old, "a", 5, 4, 20, 30),
		}},
		"a server's index goes back": {stale: true, exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), get(old, "b", 6, 6, 20, 30), get(old, "a", 5, 5, 31, 32),
		}},
		"a compare-and-set succeeds once": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), with(set(1, "b", 6, 11, 20), cas(5)), with(with(set(2, "c", 0, 11, 20), cas(5)), fate(history.Conflict)), get(fresh, "b", 6, 6, 21, 22),
		}},
		"a compare-and-set succeeds twice": {order: true, stale: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), with(set(1, "b", 6, 11, 20), cas(5)), with(set(2, "c", 7, 11, 20), cas(5)),
		}},
		"a compare-and-set fails for nothing": {order: true, stale: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), with(with(set(2, "c", 0, 11, 20), cas(5)), fate(history.Conflict)),
		}},
		"a refused write is seen": {order: true, exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), with(set(2, "b", 0, 11, 20), fate(history.Refused)), get(fresh, "b", 6, 6, 21, 22),
		}},
		"a value nobody wrote": {order: true, exactness: true, operations: []history.Operation{
			get(fresh, "x", 6, 6, 21, 22),
		}},
		"a write of unknown fate took effect late": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), with(set(2, "b", 0, 11, 20), fate(history.Unknown)), get(fresh, "a", 5, 5, 21, 22), get(fresh, "b", 6, 6, 23, 24),
		}},
		"a write of unknown fate never took effect": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), with(set(2, "b", 0, 11, 20), fate(history.Unknown)), get(fresh, "a", 5, 9, 21, 22),
		}},
		"a write of unknown fate comes and goes": {order: true, exactness: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), with(set(2, "b", 0, 11, 20), fate(history.Unknown)), get(fresh, "b", 6, 6, 21, 22), get(fresh, "a", 5, 9, 23, 24),
		}},
		"a retry is applied again": {exactness: true, order: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), get(fresh, "a", 6, 6, 20, 21),
		}},
		"a deletion of unknown fate": {operations: []history.Operation{
			set(1, "a", 5, 0, 10), with(remove(0, 11, 20), fate(history.Unknown)), get(fresh, "a", 5, 5, 21, 22), get(fresh, "", 0, 7, 23, 24),
		}},
		"a deletion that deleted nothing": {order: true, stale: true, operations: []history.Operation{
			set(1, "a", 5, 0, 10), remove(0, 11, 12),
		}},
		"a watch tells all": {
			operations: []history.Operation{set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), set(1, "c", 7, 13, 14), remove(8, 15, 16)},
			watch:      []history.Message{message(6, event("b", 6)), message(8, event("c", 7), history.Event{Key: "k", Deleted: true, Modify: 8})},
		},
		"a watch misses one": {
			exactness: true, operations: []history.Operation{set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), set(1, "c", 7, 13, 14)},
			watch: []history.Message{message(5, event("a", 5)), message(6), message(7, event("c", 7))},
		},
		"a watch misses the last state": {
			exactness: true, operations: []history.Operation{set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12)},
			watch: []history.Message{message(6, event("a", 5))},
		},
		"a watch tells twice": {
			exactness: true, operations: []history.Operation{set(1, "a", 5, 0, 10)},
			watch: []history.Message{message(5, event("a", 5)), message(6, event("a", 5))},
		},
		"a watch tells out of order": {
			exactness: true, operations: []history.Operation{set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12)},
			watch: []history.Message{message(4), message(6, event("b", 6), event("a", 5))},
		},
		"a watch leaves out what was replaced": {
			operations: []history.Operation{set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12), set(1, "c", 7, 13, 14)},
			watch:      []history.Message{message(5, event("a", 5)), message(7, event("c", 7))},
		},
		"a watch goes on": {
			operations: []history.Operation{set(1, "a", 5, 0, 10), set(1, "b", 6, 11, 12)}, from: 5,
			watch: []history.Message{message(6, event("b", 6))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := &history.History{Operations: c.operations}
			if c.watch != nil {
				h.Watches = []history.Watch{{Server: "a", From: c.from, Messages: c.watch}}
			}
			require.Equal(t, c.order, len(history.Order(h, fresh, limit)) > 0, "order")
			require.Equal(t, c.stale, len(history.Order(h, old, limit)) > 0, "order with stale reads")
			wrong := history.Exact(h)
			require.Equal(t, c.exactness, len(wrong) > 0, "exactness: %v", wrong)
		})
	}
}

func TestALockHasOneHolderAndTokensThatGrow(t *testing.T) {
	hold := func(client int, token uint64, call, granted, until time.Duration) history.Hold {
		return history.Hold{Client: client, Name: "l", Token: token, Call: call, Granted: granted, Until: until}
	}
	fenced := func(h history.Hold, indexes ...uint64) history.Hold {
		h.Fenced = indexes
		return h
	}
	for name, c := range map[string]struct {
		holds           []history.Hold
		wrong, disorder bool
	}{
		"one after the other":       {holds: []history.Hold{hold(1, 5, 0, 10, 20), hold(2, 6, 5, 25, 30), hold(1, 9, 31, 32, 40)}},
		"granted twice":             {[]history.Hold{hold(1, 5, 0, 10, 20), hold(2, 6, 5, 15, 30)}, true, true},
		"one token for two":         {[]history.Hold{hold(1, 5, 0, 10, 20), hold(2, 5, 21, 25, 30)}, true, true},
		"a token lower than before": {[]history.Hold{hold(1, 7, 0, 10, 20), hold(2, 6, 21, 25, 30)}, true, true},
		"fenced while held":         {holds: []history.Hold{fenced(hold(1, 5, 0, 10, 20), 6, 7), fenced(hold(2, 8, 5, 25, 30), 9)}},
		"fenced after it was lost":  {[]history.Hold{fenced(hold(1, 5, 0, 10, 20), 6, 9), hold(2, 8, 5, 25, 30)}, true, false},
		"asked for at once":         {holds: []history.Hold{hold(1, 7, 0, 30, 40), hold(2, 6, 5, 10, 20)}},
		"one inside another":        {[]history.Hold{hold(1, 5, 0, 10, 40), hold(2, 6, 15, 20, 30)}, true, true},
		"never sure of it":          {holds: []history.Hold{hold(1, 5, 0, 30, 10), hold(2, 6, 5, 20, 40)}},
	} {
		t.Run(name, func(t *testing.T) {
			h := &history.History{Holds: c.holds}
			require.Equal(t, c.wrong, len(history.Exclusive(h)) > 0)
			require.Equal(t, c.disorder, len(history.Turns(h, limit)) > 0)
		})
	}
}

func TestHalfATransactionIsSeen(t *testing.T) {
	read := with(get(history.Linearizable, "a", 5, 6, 0, 1), func(o *history.Operation) { o.Twin = &history.Twin{Found: true, Value: "a", Modify: 5} })
	require.Empty(t, history.Atomic(&history.History{Operations: []history.Operation{read, get(history.Stale, "b", 5, 6, 0, 1)}}))
	read.Twin = &history.Twin{Found: true, Value: "b", Modify: 7}
	require.Len(t, history.Atomic(&history.History{Operations: []history.Operation{read}}), 1)
	read.Twin = &history.Twin{}
	require.Len(t, history.Atomic(&history.History{Operations: []history.Operation{read}}), 1)
}
