package watch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/watch"
)

const kv = registryv1.Table_TABLE_KV

func row(key string, index uint64) *registryv1.Record {
	return &registryv1.Record{Table: kv, Key: key, ModifyIndex: index}
}

func newHub(index uint64) *watch.Hub { return watch.NewHub(index, watch.DefaultLimits()) }

func woken(s *watch.Subscription) bool {
	select {
	case <-s.Wake():
		return true
	default:
		return false
	}
}

func take(t require.TestingT, s *watch.Subscription) *watch.Delta {
	d, known := s.Take()
	require.True(t, known)
	return d
}

func keys(d *watch.Delta) []string {
	var out []string
	for _, r := range d.Rows {
		out = append(out, fmt.Sprintf("%s@%d", r.GetKey(), r.GetModifyIndex()))
	}
	return out
}

func TestSubscriptionGetsWhatItsFiltersName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(0)
		s := h.Subscribe(watch.Filter{Table: kv, Prefix: "local/a"}, watch.Filter{Table: kv, Prefix: "global/x", Exact: true})
		defer s.Close()
		h.Publish(1, []*registryv1.Record{row("local/b", 1), row("global/xy", 1), {Table: registryv1.Table_TABLE_NODE, Key: "local/a"}})
		synctest.Wait()
		require.False(t, woken(s))
		h.Publish(2, []*registryv1.Record{row("local/a/1", 2), row("global/x", 2)})
		synctest.Wait()
		require.True(t, woken(s))
		d := take(t, s)
		require.EqualValues(t, 2, d.Index)
		require.ElementsMatch(t, []string{"local/a/1@2", "global/x@2"}, keys(d))
		require.Empty(t, take(t, s).Rows, "once")
	})
}

func TestOverlappingFiltersDeliverARowOnce(t *testing.T) {
	h := newHub(0)
	twice := watch.Filter{Table: kv, Prefix: "ab"}
	s := h.Subscribe(watch.Filter{Table: kv, Prefix: "a"}, twice, twice, watch.Filter{Table: kv, Prefix: "abc", Exact: true})
	defer s.Close()
	h.Publish(1, []*registryv1.Record{row("abc", 1)})
	require.Equal(t, []string{"abc@1"}, keys(take(t, s)))
}

func TestASlowSubscriptionGetsTheLastVersionOfEachRow(t *testing.T) {
	h := watch.NewHub(0, watch.Limits{Rows: 2, Bytes: 1 << 20, TotalBytes: 1 << 20})
	s := h.Subscribe(watch.Filter{Table: kv})
	defer s.Close()
	for i := range uint64(1000) {
		h.Publish(i+1, []*registryv1.Record{row(fmt.Sprintf("k%d", i%2), i+1)})
	}
	require.Equal(t, []string{"k0@999", "k1@1000"}, keys(take(t, s)), "in the order of their indexes, however many were written")
}

func TestASubscriptionThatFellBehindIsToldAndGetsNothingMore(t *testing.T) {
	for name, limits := range map[string]watch.Limits{
		"rows":            {Rows: 2, Bytes: 1 << 20, TotalBytes: 1 << 20},
		"bytes":           {Rows: 100, Bytes: 1000, TotalBytes: 1 << 20},
		"bytes in total":  {Rows: 100, Bytes: 1 << 20, TotalBytes: 1000},
		"not even one":    {Rows: 0, Bytes: 1 << 20, TotalBytes: 1 << 20},
		"not a byte more": {Rows: 100, Bytes: 0, TotalBytes: 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := watch.NewHub(0, limits)
			slow, quick := h.Subscribe(watch.Filter{Table: kv}), h.Subscribe(watch.Filter{Table: kv})
			defer slow.Close()
			defer quick.Close()
			for i := range uint64(3) {
				r := row(fmt.Sprintf("k%d", i), i+1)
				r.Value = make([]byte, 200)
				h.Publish(i+1, []*registryv1.Record{r})
				if limits.Rows == 2 {
					require.Len(t, take(t, quick).Rows, 1, "who keeps up misses nothing")
				}
			}
			for range 2 {
				_, known := slow.Take()
				require.False(t, known)
			}
		})
	}
}

func TestResetMakesEverybodyReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(5)
		collects, listens := h.Subscribe(watch.Filter{Table: kv}), h.Listen(watch.Filter{Table: kv, Prefix: "k", Exact: true})
		defer collects.Close()
		defer listens.Close()
		h.Reset(9)
		synctest.Wait()
		require.True(t, woken(collects))
		require.True(t, woken(listens))
		_, known := collects.Take()
		require.False(t, known)
		fresh := h.Subscribe(watch.Filter{Table: kv})
		defer fresh.Close()
		h.Publish(10, []*registryv1.Record{row("k", 10)})
		require.Equal(t, []string{"k@10"}, keys(take(t, fresh)))
	})
}

func TestSkippedChangesAreNotDelivered(t *testing.T) {
	h := newHub(0)
	s := h.Subscribe(watch.Filter{Table: kv})
	defer s.Close()
	h.Publish(2, []*registryv1.Record{row("a", 1), row("b", 2)})
	s.Skip(3)
	h.Publish(4, []*registryv1.Record{row("c", 3), row("d", 4)})
	require.Equal(t, []string{"d@4"}, keys(take(t, s)))
}

func TestWhoTookEverythingHoldsNothingBack(t *testing.T) {
	h := watch.NewHub(0, watch.Limits{Rows: 1, Bytes: 1 << 20, TotalBytes: 1 << 20})
	early, late := h.Subscribe(watch.Filter{Table: kv}), h.Subscribe(watch.Filter{Table: kv})
	defer late.Close()
	h.Publish(1, []*registryv1.Record{row("a", 1)})
	require.Len(t, take(t, early).Rows, 1)
	h.Publish(5, nil)
	require.Len(t, take(t, late).Rows, 1, "the rows are forgotten now, and early has not fallen behind")
	h.Publish(6, []*registryv1.Record{row("b", 6)})
	require.Len(t, take(t, early).Rows, 1)
	early.Close()
	h.Publish(7, []*registryv1.Record{row("b", 7)})
	require.Equal(t, []string{"b@7"}, keys(take(t, late)))
}

func TestEquallyFarSubscriptionsShareWhatIsMadeOfADelta(t *testing.T) {
	h := newHub(0)
	var subs []*watch.Subscription
	for range 3 {
		s := h.Subscribe(watch.Filter{Table: kv, Prefix: "k", Exact: true})
		defer s.Close()
		subs = append(subs, s)
	}
	made := 0
	share := func(d *watch.Delta, now time.Time) int {
		return watch.Share(d, now, time.Second, func() int { made++; return made })
	}
	now := time.Now()
	h.Publish(1, []*registryv1.Record{row("k", 1)})
	require.Equal(t, 1, share(take(t, subs[0]), now))
	h.Publish(2, nil) // Nobody's rows.
	d := take(t, subs[1])
	require.Equal(t, 1, share(d, now))
	require.Equal(t, 2, share(d, now.Add(2*time.Second)), "not for ever")
	h.Publish(3, []*registryv1.Record{row("k", 3)})
	d = take(t, subs[2])
	require.Equal(t, []string{"k@3"}, keys(d))
	require.Equal(t, 3, share(d, now))
	require.Equal(t, 3, share(take(t, subs[0]), now), "the same row is new to both")
}

func TestAwaitReturnsWhenTheIndexIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(3)
		require.NoError(t, h.Await(t.Context(), 3))
		reached := make(chan error, 1)
		go func() { reached <- h.Await(t.Context(), 5) }()
		h.Publish(4, nil)
		synctest.Wait()
		require.Empty(t, reached)
		h.Publish(6, nil)
		require.NoError(t, <-reached)
		gone := errors.New("gone")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, gone)
		defer cancel()
		require.ErrorIs(t, h.Await(ctx, 7), gone)
	})
}

// Every subscription, however slow, ends with the last version of every row it watches, sees each
// row's versions in order, and never hears of an index before the rows up to it.
func TestEveryWatcherEndsWithTheStoresState(t *testing.T) {
	const commits = 3000
	h := newHub(0)
	filters := []watch.Filter{{Table: kv}, {Table: kv, Prefix: "a"}, {Table: kv, Prefix: "a/1", Exact: true}, {Table: kv, Prefix: "b"}}
	type watcher struct {
		sub   *watch.Subscription
		named func(key string) bool
		pause time.Duration
	}
	var watchers []watcher
	for i, f := range filters {
		for _, pause := range []time.Duration{0, 50 * time.Microsecond, 3 * time.Millisecond} {
			watchers = append(watchers, watcher{h.Subscribe(f), func(key string) bool { return filters[i].Match(kv, key) }, pause})
		}
	}
	both := h.Subscribe(filters[1], filters[3], filters[2])
	watchers = append(watchers, watcher{both, func(key string) bool { return strings.HasPrefix(key, "a") || strings.HasPrefix(key, "b") }, time.Millisecond})

	want := map[string]uint64{}
	var wg sync.WaitGroup
	results := make([]map[string]uint64, len(watchers))
	for i, w := range watchers {
		wg.Go(func() {
			defer w.sub.Close()
			seen, reached := map[string]uint64{}, uint64(0)
			for reached < commits {
				<-w.sub.Wake()
				d, known := w.sub.Take()
				if !known {
					t.Error("lagged")
					return
				}
				last := uint64(0)
				for _, r := range d.Rows {
					if r.GetModifyIndex() < last || r.GetModifyIndex() <= reached && reached > 0 || r.GetModifyIndex() > d.Index {
						t.Errorf("row %s@%d after %d, between %d and %d", r.GetKey(), r.GetModifyIndex(), last, reached, d.Index)
					}
					last = r.GetModifyIndex()
					seen[r.GetKey()] = last
				}
				reached = max(reached, d.Index)
				<-time.After(w.pause) // a slow reader
			}
			results[i] = seen
		})
	}
	for i := uint64(1); i < commits; i++ {
		key := fmt.Sprintf("%c/%d", "abc"[i%3], i%7)
		want[key] = i
		h.Publish(i, []*registryv1.Record{row(key, i)})
	}
	var last []*registryv1.Record // Wakes everybody.
	for _, key := range []string{"a/1", "b/end"} {
		want[key] = commits
		last = append(last, row(key, commits))
	}
	h.Publish(commits, last)
	wg.Wait()
	for i, w := range watchers {
		mine := maps.Clone(want)
		maps.DeleteFunc(mine, func(key string, _ uint64) bool { return !w.named(key) })
		require.Equal(t, mine, results[i], i)
	}
}

func TestHubAgreesWithAskingEveryFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := watch.Limits{Rows: rapid.IntRange(3, 40).Draw(t, "rows"), Bytes: 1 << 20, TotalBytes: 1 << 20}
		h := watch.NewHub(0, limits)
		text := rapid.StringMatching(`[ab]{0,3}`)
		type watcher struct {
			sub     *watch.Subscription
			filters []watch.Filter
			since   uint64
		}
		var watchers []*watcher
		var log []*registryv1.Record
		check := func(w *watcher) {
			d, known := w.sub.Take()
			if !known {
				distinct := map[string]bool{}
				for _, r := range log[w.since:] {
					distinct[r.GetKey()] = true
				}
				require.Greater(t, len(distinct), limits.Rows, "told to read anew without need")
				w.sub.Close()
				w.sub, w.since = h.Subscribe(w.filters...), uint64(len(log))
				return
			}
			var want []string
			for i, r := range log {
				later := slices.ContainsFunc(log[i+1:], func(o *registryv1.Record) bool { return o.GetKey() == r.GetKey() })
				named := slices.ContainsFunc(w.filters, func(f watch.Filter) bool { return f.Match(kv, r.GetKey()) })
				if r.GetModifyIndex() > w.since && named && !later {
					want = append(want, fmt.Sprintf("%s@%d", r.GetKey(), r.GetModifyIndex()))
				}
			}
			require.Equal(t, want, keys(d))
			w.since = uint64(len(log))
		}
		t.Repeat(map[string]func(*rapid.T){
			"subscribe": func(t *rapid.T) {
				w := &watcher{since: uint64(len(log))}
				for range rapid.IntRange(1, 3).Draw(t, "filters") {
					w.filters = append(w.filters, watch.Filter{Table: kv, Prefix: text.Draw(t, "prefix"), Exact: rapid.Bool().Draw(t, "exact")})
				}
				w.sub = h.Subscribe(w.filters...)
				watchers = append(watchers, w)
			},
			"close": func(t *rapid.T) {
				if len(watchers) > 0 {
					i := rapid.IntRange(0, len(watchers)-1).Draw(t, "who")
					watchers[i].sub.Close()
					watchers = slices.Delete(watchers, i, i+1)
				}
			},
			"publish": func(t *rapid.T) {
				r := row(text.Draw(t, "key"), uint64(len(log)+1))
				log = append(log, r)
				h.Publish(r.GetModifyIndex(), []*registryv1.Record{r})
			},
			"take": func(t *rapid.T) {
				if len(watchers) > 0 {
					check(watchers[rapid.IntRange(0, len(watchers)-1).Draw(t, "who")])
				}
			},
		})
		for _, w := range watchers {
			check(w)
			w.sub.Close()
		}
	})
}
