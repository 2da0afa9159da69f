package watch_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/watch"
)

const kv = registryv1.Table_TABLE_KV

func row(key string, index uint64) *registryv1.Record {
	return &registryv1.Record{Table: kv, Key: key, ModifyIndex: index}
}

func woken(s *watch.Subscription) bool {
	select {
	case <-s.Wake():
		return true
	default:
		return false
	}
}

func TestSubscriptionGetsWhatItsFiltersName(t *testing.T) {
	h := watch.NewHub(0)
	s := h.Subscribe(10, watch.Filter{Table: kv, Prefix: "local/a"}, watch.Filter{Table: kv, Prefix: "global/x", Exact: true})
	defer s.Close()
	h.Publish(1, []*registryv1.Record{row("local/b", 1), row("global/xy", 1), {Table: registryv1.Table_TABLE_NODE, Key: "local/a"}})
	require.False(t, woken(s))
	h.Publish(2, []*registryv1.Record{row("local/a/1", 2), row("global/x", 2)})
	require.True(t, woken(s))
	rows, index, lagged := s.Take()
	require.False(t, lagged)
	require.EqualValues(t, 2, index)
	require.Len(t, rows, 2)
}

func TestOverlappingFiltersDeliverARowOnce(t *testing.T) {
	h := watch.NewHub(0)
	s := h.Subscribe(10, watch.Filter{Table: kv, Prefix: "a"}, watch.Filter{Table: kv, Prefix: "ab"}, watch.Filter{Table: kv, Prefix: "abc", Exact: true})
	defer s.Close()
	h.Publish(1, []*registryv1.Record{row("abc", 1)})
	rows, _, _ := s.Take()
	require.Len(t, rows, 1)
}

func TestASlowSubscriptionIsToldAndGetsNothingMore(t *testing.T) {
	h := watch.NewHub(0)
	s := h.Subscribe(2, watch.Filter{Table: kv})
	defer s.Close()
	for i := range uint64(3) {
		h.Publish(i+1, []*registryv1.Record{row("k", i+1)})
	}
	require.True(t, woken(s))
	rows, _, lagged := s.Take()
	require.True(t, lagged)
	require.Empty(t, rows)
}

func TestResetMakesEverybodyReadAnew(t *testing.T) {
	h := watch.NewHub(5)
	s := h.Subscribe(0, watch.Filter{Table: kv, Prefix: "k", Exact: true})
	defer s.Close()
	h.Reset(9)
	require.True(t, woken(s))
	_, index, lagged := s.Take()
	require.True(t, lagged)
	require.EqualValues(t, 9, index)
}

func TestConcurrentPublishLosesNothing(t *testing.T) {
	h := watch.NewHub(0)
	s := h.Subscribe(1<<20, watch.Filter{Table: kv, Prefix: "k"})
	defer s.Close()
	const n = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint64(n) {
			h.Publish(i+1, []*registryv1.Record{row(fmt.Sprintf("k%d", i), i+1)})
		}
	})
	var last uint64
	for last < n {
		<-s.Wake()
		rows, index, lagged := s.Take()
		require.False(t, lagged)
		for _, r := range rows {
			require.Equal(t, last+1, r.GetModifyIndex())
			last = r.GetModifyIndex()
		}
		require.Equal(t, last, index, "everything up to the index has been delivered")
	}
	wg.Wait()
}

func TestHubAgreesWithAskingEveryFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := watch.NewHub(0)
		text := rapid.StringMatching(`[ab]{0,4}`)
		var subs []*watch.Subscription
		var filters []watch.Filter
		for range rapid.IntRange(1, 8).Draw(t, "subs") {
			f := watch.Filter{Table: kv, Prefix: text.Draw(t, "prefix"), Exact: rapid.Bool().Draw(t, "exact")}
			s := h.Subscribe(100, f)
			if rapid.IntRange(0, 3).Draw(t, "close") == 0 {
				s.Close()
				continue
			}
			subs, filters = append(subs, s), append(filters, f)
		}
		keys := rapid.SliceOfN(text, 1, 20).Draw(t, "keys")
		for i, key := range keys {
			h.Publish(uint64(i+1), []*registryv1.Record{row(key, uint64(i+1))})
		}
		for i, s := range subs {
			var want, got []string
			for _, key := range keys {
				if filters[i].Match(kv, key) {
					want = append(want, key)
				}
			}
			rows, _, _ := s.Take()
			for _, r := range rows {
				got = append(got, r.GetKey())
			}
			require.Equal(t, want, got)
			s.Close()
		}
	})
}
