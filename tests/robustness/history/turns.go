package history

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// Turns asks of every lock whether it can have gone from holder to holder, with tokens that grow,
// in an order that agrees with real time, and returns those that cannot. Limit is the time for one
// lock.
func Turns(h *History, limit time.Duration) []Disorder {
	locks := map[string][]porcupine.Operation{}
	for _, hold := range h.Holds {
		// It may have ended at any time after the client was no more sure of it, and not before it
		// began.
		end := max(hold.Call, hold.Until)
		locks[hold.Name] = append(locks[hold.Name],
			porcupine.Operation{ClientId: hold.Client, Input: turn{token: hold.Token}, Call: int64(hold.Call), Return: int64(hold.Granted)},
			porcupine.Operation{ClientId: hold.Client, Input: turn{token: hold.Token, ends: true}, Call: int64(end), Return: math.MaxInt64})
	}
	return disorders(mutex(), locks, limit)
}

// turn is what happens to a lock: it is given with a token, or what was given with it ends.
type turn struct {
	token uint64
	ends  bool
}

// held is the state of a lock: the last token that was given, and whether it is held with it.
type held struct {
	token uint64
	now   bool
}

// mutex is a lock that one holds at a time, each with a higher token than all before. A client that
// was given the lock and never heard of it is not in the history: others find the lock free all the
// same.
func mutex() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return held{} },
		Step: func(state, input, _ any) (bool, any) {
			s, t := state.(held), input.(turn)
			if t.ends {
				return s.now && s.token == t.token, held{t.token, false}
			}
			return !s.now && s.token < t.token, held{t.token, true}
		},
		DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}
