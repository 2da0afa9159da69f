package lease

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/obs"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/record"
)

const (
	// EndedAtOnce is how many of the keys and locks of leases one commit takes away, where nothing
	// else is said: twice as many rows change, and nobody else writes meanwhile.
	EndedAtOnce = 2000
	// proposedAtOnce is how many leases a leader ends in one proposal, if no more is attached to
	// them than may go at once.
	proposedAtOnce = 256
)

// soon is the deadline of what is due already, such as the end of a lease that goes on.
const soon = time.Millisecond

// lockPrefix marks the deadlines of locks that were lost: when the delay is over their rows go.
const lockPrefix = "lock/"

// Keeper knows, on the leader, how long each lease has to go, and ends what nobody kept alive. Safe
// for concurrent use.
type Keeper struct {
	clock   clock.Clock
	atOnce  int
	bounded func() bool
	expirer *Expirer

	// mu orders what is kept alive before or after what ends: a lease whose end is on its way to
	// the log must not be promised more time.
	mu      sync.Mutex
	leading bool
	ending  map[string]bool
}

// NewKeeper returns a keeper of no leases, which ends so many keys and locks in one commit. bounded
// reports whether every server understands leases that end in several commits; until then each ends
// in one.
func NewKeeper(c clock.Clock, atOnce int, bounded func() bool) *Keeper {
	return &Keeper{clock: c, atOnce: atOnce, bounded: bounded, expirer: NewExpirer(c), ending: map[string]bool{}}
}

// End returns the command that ends a lease as it was read, so that one of the same name that came
// after it lives on. What is left of many keys then, whoever leads deletes in the commits that
// follow; see Gone.
func (k *Keeper) End(requestID string, row *registryv1.Record) *registryv1.Command {
	if !k.bounded() {
		return end(requestID, row, 0)
	}
	return end(requestID, row, uint64(k.atOnce)) //nolint:gosec // a positive number
}

// Weight returns how many keys and locks end with a lease, or the most that one commit takes away.
func (k *Keeper) Weight(r record.Reader, id string) (int, error) {
	n := 0
	err := r.Scan(table, record.ScanOptions{Prefix: fsm.AttachedPrefix(id), KeysOnly: true}, func(*registryv1.Record) bool {
		n++
		return n < k.atOnce
	})
	return n, err
}

// Apply follows a batch, while this server leads.
func (k *Keeper) Apply(rows []*registryv1.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.leading {
		return nil
	}
	for _, row := range rows {
		deadline, ttl, err := k.deadline(row)
		switch {
		case err != nil:
			return err
		case deadline == "":
			continue
		case ttl > 0:
			k.expirer.Set(deadline, ttl)
		default:
			k.expirer.Remove(deadline)
		}
		delete(k.ending, deadline)
	}
	return nil
}

// deadline returns which deadline a row has, empty for none, and how far off it is; 0: it has it no
// more.
func (k *Keeper) deadline(row *registryv1.Record) (string, time.Duration, error) {
	switch row.GetTable() {
	case table:
		if strings.HasPrefix(row.GetKey(), fsm.EndingPrefix) {
			if row.GetDeleted() {
				return row.GetKey(), 0, nil
			}
			return row.GetKey(), soon, nil
		}
		if !strings.HasPrefix(row.GetKey(), fsm.LeasePrefix) {
			return "", 0, nil
		}
		if row.GetDeleted() {
			return row.GetKey(), 0, nil
		}
		lease, err := Decode(row)
		return row.GetKey(), lease.GetTtl().AsDuration(), err
	case registryv1.Table_TABLE_LOCK:
		lock, err := fsm.DecodeLock(row)
		if lock == nil || lock.GetLease() != "" {
			return lockPrefix + row.GetKey(), 0, err
		}
		// Clocks of servers differ: what one wrote is not much longer by another.
		left := min(lock.GetFreeAt().AsTime().Sub(k.clock.Now()), lock.GetDelay().AsDuration())
		return lockPrefix + row.GetKey(), max(left, soon), nil
	}
	return "", 0, nil
}

// begin is where a leadership begins.
func (k *Keeper) begin(store record.Store) error {
	// Under mu, so that what is committed after the state was read is applied after it.
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(store); err != nil {
		return err
	}
	k.leading = true
	return nil
}

// Restored reads the leases anew, while this server leads: the state was replaced as a whole.
func (k *Keeper) Restored(store record.Store) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.leading {
		return nil
	}
	return k.read(store)
}

// read gives every deadline its whole time from now on. It runs under mu.
func (k *Keeper) read(store record.Store) error {
	deadlines := map[string]time.Duration{}
	err := store.View(func(r record.Reader) error {
		for _, options := range []struct {
			table  registryv1.Table
			prefix string
		}{{table, fsm.LeasePrefix}, {table, fsm.EndingPrefix}, {registryv1.Table_TABLE_LOCK, ""}} {
			err := record.Each(r, options.table, record.ScanOptions{Prefix: options.prefix}, func(row *registryv1.Record) error {
				deadline, ttl, err := k.deadline(row)
				if ttl > 0 {
					deadlines[deadline] = ttl
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.ending = map[string]bool{}
	k.expirer.Reset(deadlines)
	return nil
}

// leave forgets everything: what is known of leases is the next leader's to know.
func (k *Keeper) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leading, k.ending = false, map[string]bool{}
	k.expirer.Reset(nil)
}

// Propose commits commands, each by itself, and returns an error if the outcome of one is not
// known.
type Propose func(ctx context.Context, cmds []*registryv1.Command) error

// Lead ends what nobody keeps alive, as long as ctx lasts.
func (k *Keeper) Lead(ctx context.Context, store record.Store, log *slog.Logger, propose Propose) error {
	if err := k.begin(store); err != nil {
		return fmt.Errorf("read the leases: %w", err)
	}
	defer k.leave()
	return k.expirer.Run(ctx, func(ctx context.Context, deadlines []string) error {
		for len(deadlines) > 0 {
			n := min(len(deadlines), proposedAtOnce)
			if err := k.end(ctx, store, deadlines[:n], propose); err != nil {
				if ctx.Err() == nil {
					log.Warn("leases could not be ended; trying again", obs.KeyError, err)
				}
				return err
			}
			deadlines = deadlines[n:]
		}
		return nil
	})
}

// end ends what has not been kept alive up to now.
func (k *Keeper) end(ctx context.Context, store record.Store, deadlines []string, propose Propose) error {
	due := k.due(deadlines)
	for rest := due; len(rest) > 0; {
		cmds, n, err := k.some(store, rest)
		if err != nil {
			return err
		}
		if len(cmds) > 0 {
			if err := propose(ctx, cmds); err != nil {
				return err // They stay marked: nobody knows whether they have ended.
			}
		}
		rest = rest[n:]
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, deadline := range due {
		delete(k.ending, deadline)
	}
	return nil
}

// some returns the commands that end the first of what is due, no more together than one commit may
// take away, and how many of the deadlines those are. What comes then waits for them, and so do
// others' writes in between.
func (k *Keeper) some(store record.Store, due []string) (cmds []*registryv1.Command, n int, err error) {
	err = store.View(func(r record.Reader) error {
		for rows := 0; n < len(due); n++ {
			cmd, weight, err := k.commandOf(r, due[n])
			if err != nil {
				return err
			}
			if rows += weight; rows > k.atOnce && n > 0 {
				return nil
			}
			if cmd != nil {
				cmds = append(cmds, cmd)
			}
		}
		return nil
	})
	return cmds, n, err
}

// due marks what has passed still: from here on it cannot be kept alive.
func (k *Keeper) due(deadlines []string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for _, deadline := range deadlines {
		if left, known := k.expirer.Left(deadline); known && left <= 0 {
			k.ending[deadline] = true
			out = append(out, deadline)
		}
	}
	return out
}

// commandOf returns the command that ends what a deadline is of, nil when it is gone or another
// one, and how many rows it may take away beside that.
func (k *Keeper) commandOf(r record.Reader, deadline string) (*registryv1.Command, int, error) {
	if name, ok := strings.CutPrefix(deadline, lockPrefix); ok {
		cmd, err := freeing(r, name)
		return cmd, 0, err
	}
	row, err := r.Get(table, deadline)
	if err != nil || !record.Live(row) {
		return nil, 0, err
	}
	if strings.HasPrefix(deadline, fsm.EndingPrefix) {
		return proceed(row, uint64(k.atOnce)), k.atOnce, nil //nolint:gosec // a positive number
	}
	attached, err := k.Weight(r, strings.TrimPrefix(deadline, fsm.LeasePrefix))
	return k.End("", row), attached, err
}

// freeing returns the command that forgets a lock which was lost; nil when it is another one's.
func freeing(r record.Reader, name string) (*registryv1.Command, error) {
	row, err := r.Get(registryv1.Table_TABLE_LOCK, name)
	if err != nil {
		return nil, err
	}
	lock, err := fsm.DecodeLock(row)
	if err != nil || lock == nil || lock.GetLease() != "" {
		return nil, err
	}
	return &registryv1.Command{
		Conditions: []*registryv1.Condition{record.When(row.GetTable(), name, row.GetModifyIndex(), "LOCK_TAKEN")},
		Operations: []*registryv1.Operation{record.Delete(row.GetTable(), name)},
	}, nil
}

// KeepAlive begins a lease's time anew.
func (k *Keeper) KeepAlive(id string, ttl time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	deadline := fsm.LeasePrefix + id
	if k.ending[deadline] {
		return Ending(id)
	}
	if !k.leading {
		return nil // The leadership has just begun: every lease is about to get its whole time.
	}
	if _, known := k.expirer.Left(deadline); !known {
		return NotFound(id) // It has ended since the caller read it.
	}
	k.expirer.Set(deadline, ttl)
	return nil
}

// Left returns how long a lease has to go if nobody keeps it alive; false when it is not known.
func (k *Keeper) Left(id string) (time.Duration, bool) {
	left, known := k.expirer.Left(fsm.LeasePrefix + id)
	return max(left, 0), known
}
