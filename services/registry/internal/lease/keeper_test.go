package lease_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/clock"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/fsm/fsmtest"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/record/recordtest"
)

// mostRows is how many keys and locks of leases may go with what is proposed at once.
const mostRows = 20

// log is a store that commands are applied to, one proposal after the other.
type log struct {
	*recordtest.Store
	t testing.TB

	mu     sync.Mutex
	index  uint64
	keeper *lease.Keeper
	// largest is how many keys the proposal deleted that deleted most.
	largest int
	fail    func(proposal int) bool
	count   int
}

func (l *log) View(fn func(record.Reader) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fn(l.Store)
}

func (l *log) propose(_ context.Context, cmds []*registryv1.Command) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	before := l.keys()
	l.index++
	for _, cmd := range cmds {
		_, err := fsmtest.Apply(l.At(l.index), l.index, cmd)
		require.NoError(l.t, err)
	}
	l.largest = max(l.largest, before-l.keys())
	var changed []*registryv1.Record
	for _, row := range l.All() {
		if row.GetModifyIndex() == l.index {
			changed = append(changed, row)
		}
	}
	require.NoError(l.t, l.keeper.Apply(changed))
	if l.fail != nil && l.fail(l.count) {
		return context.DeadlineExceeded // It was committed, and nobody knows.
	}
	return nil
}

func (l *log) keys() (n int) {
	for _, row := range l.All() {
		if row.GetTable() == registryv1.Table_TABLE_KV && record.Live(row) {
			n++
		}
	}
	return n
}

func (l *log) rows(prefix string) (n int) {
	for _, row := range l.All() {
		if row.GetTable() == registryv1.Table_TABLE_LEASE && record.Live(row) && strings.HasPrefix(row.GetKey(), prefix) {
			n++
		}
	}
	return n
}

// grant makes a lease with so many keys.
func (l *log) grant(w lease.Writer, id string, keys int) {
	cmd, _, err := w.Grant(&registryv1.GrantLeaseRequest{Id: id, Ttl: durationpb.New(time.Minute), RequestId: uuid.NewString()}, "token")
	require.NoError(l.t, err)
	for i := range keys {
		cmd.Operations = append(cmd.Operations, &registryv1.Operation{Op: &registryv1.Operation_Put{Put: &registryv1.Record{
			Table: registryv1.Table_TABLE_KV, Key: fmt.Sprintf("local/%s/%d", id, i), Lease: id,
		}}})
	}
	fail := l.fail
	l.fail = nil
	require.NoError(l.t, l.propose(l.t.Context(), []*registryv1.Command{cmd}))
	l.fail = fail
}

func TestLeasesOfManyKeysEndInBoundedProposals(t *testing.T) {
	for name, fail := range map[string]func(int) bool{
		"undisturbed":                   nil,
		"with outcomes that get lost":   func(n int) bool { return n%3 == 0 },
		"with a server that is too old": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := strings.Contains(name, "old")
				keeper := lease.NewKeeper(clock.System(), mostRows, func() bool { return !old })
				l := &log{Store: recordtest.New(), t: t, keeper: keeper, fail: fail}
				w := lease.Writer{MinTTL: time.Second, MaxTTL: time.Hour}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				l.grant(w, "large", 3*mostRows+1)
				for i := range 5 {
					l.grant(w, fmt.Sprintf("middle-%d", i), mostRows/2-1)
				}
				l.grant(w, "small", 1)
				l.grant(w, "kept", 7)
				go func() { done <- keeper.Lead(ctx, l, slog.New(slog.DiscardHandler), l.propose) }()
				synctest.Wait()
				pass(59 * time.Second)
				require.NoError(t, keeper.KeepAlive("kept", time.Minute))
				pass(30 * time.Second)
				synctest.Wait()
				cancel()
				require.NoError(t, <-done)
				require.Equal(t, 7, l.keys())
				require.Equal(t, 1, l.rows(fsm.LeasePrefix))
				require.Zero(t, l.rows(fsm.EndingPrefix))
				if !old {
					require.LessOrEqual(t, l.largest, mostRows)
				}
			})
		})
	}
}

func TestANewLeaderGoesOnWithAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keeper := lease.NewKeeper(clock.System(), mostRows, func() bool { return true })
		l := &log{Store: recordtest.New(), t: t, keeper: keeper}
		w := lease.Writer{MinTTL: time.Second, MaxTTL: time.Hour}
		l.grant(w, "l", 2*mostRows)
		row, err := lease.Row(l, "l")
		require.NoError(t, err)
		require.NoError(t, l.propose(t.Context(), []*registryv1.Command{keeper.End("r", row)})) // Its leader died then.
		require.Equal(t, mostRows, l.keys())
		require.Equal(t, 1, l.rows(fsm.EndingPrefix))

		again, _, err := w.Grant(&registryv1.GrantLeaseRequest{Id: "l", Ttl: durationpb.New(time.Minute), RequestId: "again"}, "token")
		require.NoError(t, err)
		result, err := fsmtest.Apply(l.At(100), 100, again)
		require.NoError(t, err)
		require.Equal(t, lease.ReasonEnding, result.GetFailedReason(), "a new lease of the id would lose its keys to the end of the old one")

		l.keeper = lease.NewKeeper(clock.System(), mostRows, func() bool { return true })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.keeper.Lead(ctx, l, slog.New(slog.DiscardHandler), l.propose) }()
		pass(time.Second)
		synctest.Wait()
		cancel()
		require.NoError(t, <-done)
		require.Zero(t, l.keys())
		require.Zero(t, l.rows(""))
	})
}
