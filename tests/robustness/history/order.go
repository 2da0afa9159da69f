package history

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Disorder is a key or a lock whose operations have no order that agrees with real time.
type Disorder struct {
	Key string
	// Undecided says that the time was up before all orders were tried.
	Undecided bool
	model     porcupine.Model
	info      porcupine.LinearizationInfo
}

// String says what was found.
func (d Disorder) String() string {
	if d.Undecided {
		return "no order found in time for " + d.Key
	}
	return "no order for " + d.Key
}

// Draw writes porcupine's picture of the key's history, a page for a browser.
func (d Disorder) Draw(path string) error {
	if err := porcupine.VisualizePath(d.model, d.info, path); err != nil {
		return fmt.Errorf("draw history: %w", err)
	}
	return nil
}

// Order asks of every key whether its writes and the reads of one mode can be put in an order that
// agrees with real time, and returns those that cannot. Limit is the time for one key. Reads answer
// what the writes before them left, but for stale ones: those answer what some of the writes before
// them left, and no process goes back.
func Order(h *History, mode Mode, limit time.Duration) []Disorder {
	model := register()
	if mode == Stale {
		model = past()
	}
	keys := map[string][]porcupine.Operation{}
	for _, o := range operations(h, mode) {
		key := o.Input.(Operation).Key
		keys[key] = append(keys[key], o)
	}
	return disorders(model, keys, limit)
}

// disorders judges what happened to each thing by itself.
func disorders(model porcupine.Model, things map[string][]porcupine.Operation, limit time.Duration) []Disorder {
	var out []Disorder
	for _, name := range slices.Sorted(maps.Keys(things)) {
		result, info := porcupine.CheckOperationsVerbose(model, things[name], limit)
		if result != porcupine.Ok {
			out = append(out, Disorder{name, result == porcupine.Unknown, model, info})
		}
	}
	return out
}

// operations returns what the model judges. Refused operations are left out: they did nothing, and
// Exact looks for their values. A write of unknown fate ends when its value was first seen, or
// never.
func operations(h *History, mode Mode) []porcupine.Operation {
	l, _ := build(h)
	var out []porcupine.Operation
	for _, o := range h.Operations {
		if o.Fate == Refused || o.Kind == Get && (o.Mode != mode || o.Fate != OK) {
			continue
		}
		end := int64(o.Return)
		if o.Fate == Unknown {
			end = math.MaxInt64
			if v, seen := l.byValue[id(o.Key, o.Value)]; o.Kind == Set && seen {
				o.Modify = v.modify
				end = int64(max(o.Call, l.firstSeen(o.Key, v.modify)))
			}
		}
		out = append(out, porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call), Output: o, Return: end})
	}
	return out
}

func (l *ledger) firstSeen(key string, modify uint64) time.Duration {
	for _, v := range l.versions[key] {
		if v.modify == modify {
			return v.seen
		}
	}
	return Never
}

// cell is the state of one key. The index of a live value is 0 where no answer told it.
type cell struct {
	live   bool
	value  string
	modify uint64
}

// register is a value under compare-and-set: one key.
func register() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return cell{} },
		Step: func(state, input, _ any) (bool, any) {
			next, ok := step(state.(cell), input.(Operation))
			return ok, next
		},
		DescribeOperation: func(input, _ any) string { return input.(Operation).String() },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}

// step returns the state after an operation, and whether the operation can have happened in this
// one.
func step(c cell, o Operation) (cell, bool) {
	if o.Kind == Get {
		if o.Found != c.live {
			return c, false
		}
		fits := !c.live || c.value == o.Value && (c.modify == 0 || c.modify == o.Modify)
		c.modify = 0
		if c.live {
			c.modify = o.Modify
		}
		return c, fits
	}
	fits, sure := matches(c, o.CAS)
	switch o.Fate {
	case Conflict:
		return c, !fits || !sure
	case Unknown:
		if !fits {
			return c, o.Modify == 0 // Its value was seen: then it must have taken effect.
		}
	case OK:
		if !fits {
			return c, false
		}
	}
	if o.Kind == Delete {
		deleted := o.Modify > 0
		return cell{}, o.Fate == Unknown || deleted == c.live
	}
	if o.Modify > 0 && c.modify >= o.Modify {
		return c, false // Indexes grow.
	}
	return cell{live: true, value: o.Value, modify: o.Modify}, true
}

// matches reports whether a compare-and-set would go ahead, and whether that is sure.
func matches(c cell, cas *uint64) (fits, sure bool) {
	switch {
	case cas == nil:
		return true, true
	case !c.live:
		return *cas == 0, true
	case c.modify == 0:
		return *cas != 0, *cas == 0
	}
	return *cas == c.modify, true
}
