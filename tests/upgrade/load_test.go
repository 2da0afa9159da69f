package upgrade

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tests/framework"
)

const (
	writers = 8
	// patience is how long one write may be tried: longer than any server is away.
	patience = 30 * time.Second
	// gone is the value of a key that was deleted.
	gone = ""
)

// load writes keys and instances, and remembers what was acknowledged. Every key has one writer.
type load struct {
	client *konsul.Client
	end    context.CancelFunc
	ended  sync.WaitGroup
	// acknowledged counts writes.
	acknowledged atomic.Int64

	mu sync.Mutex
	// keys are the values that each key may have: one, or two when the outcome of the last write is
	// not known.
	keys map[string][]string
	// instances are those whose registration was acknowledged.
	instances map[string]bool
	// broken is the first error that is no word about a server that is away.
	broken error
}

// startLoad starts writers that go on until stop.
func startLoad(t *testing.T, access framework.Access) *load {
	t.Helper()
	client := access.Client(t)
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{client: client, end: cancel, keys: map[string][]string{}, instances: map[string]bool{}}
	for w := range writers {
		l.ended.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.write(ctx, w, i)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// write makes one write: mostly new keys, and now and then one that counts, a deletion or an
// instance.
func (l *load) write(ctx context.Context, writer, i int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	fresh := fmt.Sprintf("load/%d/%06d", writer, i)
	switch i % 10 {
	case 3:
		l.set(ctx, fmt.Sprintf("load/%d/count", writer), fmt.Sprint(i))
	case 6:
		key := fmt.Sprintf("load/%d/%06d", writer, i-1)
		_, err := l.client.KV.Delete(ctx, key, nil)
		l.note(err, func() { l.keys[key] = []string{gone} }, func() { l.keys[key] = append(l.keys[key], gone) })
	case 9:
		id := fmt.Sprintf("instance-%d-%06d", writer, i)
		err := l.client.Service.Register(ctx, &konsul.Registration{ID: id, Name: fmt.Sprintf("load-%d", writer), Address: "127.0.0.1", Port: 9000})
		l.note(err, func() { l.instances[id] = true }, func() {})
	default:
		l.set(ctx, fresh, fresh)
	}
}

func (l *load) set(ctx context.Context, key, value string) {
	_, err := l.client.KV.Set(ctx, key, []byte(value), nil)
	l.note(err, func() { l.keys[key] = []string{value} }, func() {
		if len(l.keys[key]) == 0 {
			l.keys[key] = []string{gone}
		}
		l.keys[key] = append(l.keys[key], value)
	})
}

// note remembers how a write ended.
func (l *load) note(err error, done, unknown func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.acknowledged.Add(1)
		done()
		return
	}
	switch fault.CodeOf(err) {
	case fault.Unavailable, fault.Unknown, fault.DeadlineExceeded:
		unknown()
	default:
		if l.broken == nil {
			l.broken = err
		}
	}
}

// stop waits until the writers have ended.
func (l *load) stop() {
	l.end()
	l.ended.Wait()
}

// goesOn waits until more was acknowledged.
func (l *load) goesOn(t *testing.T, writes int64) {
	t.Helper()
	want := l.acknowledged.Load() + writes
	framework.Eventually(t, time.Minute, fmt.Sprintf("%d more writes are acknowledged", writes), func() error {
		l.mu.Lock()
		broken := l.broken
		l.mu.Unlock()
		require.NoError(t, broken)
		if now := l.acknowledged.Load(); now < want {
			return fmt.Errorf("%d to go", want-now)
		}
		return nil
	})
}

// verify compares what was acknowledged with what is there. The writers have ended.
func (l *load) verify(t *testing.T, client *konsul.Client) {
	t.Helper()
	require.NoError(t, l.broken)
	list, err := client.KV.List(t.Context(), "load/", &konsul.ListKeysOptions{ReadMode: konsul.ReadLinearizable})
	require.NoError(t, err)
	found := map[string]string{}
	for _, e := range list.Entries {
		found[e.Key] = string(e.Value)
		require.Contains(t, l.keys, e.Key, "nobody wrote this key")
	}
	for key, values := range l.keys {
		require.Contains(t, values, found[key], "key %s", key)
	}
	for w := range writers {
		there := map[string]bool{}
		services, err := client.Service.Get(t.Context(), fmt.Sprintf("load-%d", w), nil)
		if fault.CodeOf(err) != fault.NotFound {
			require.NoError(t, err)
		}
		for _, s := range services {
			there[s.ID] = true
		}
		for id := range l.instances {
			var of int
			_, err := fmt.Sscanf(id, "instance-%d-", &of)
			require.NoError(t, err)
			require.True(t, of != w || there[id], "instance %s is lost", id)
		}
	}
}
