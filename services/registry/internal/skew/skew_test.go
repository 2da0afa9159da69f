package skew_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
	"konsul.dev/services/registry/internal/skew"
)

func TestADifferenceIsNotableOnlyBeyondWhatTheRoundTripExplains(t *testing.T) {
	at := time.Unix(1000, 0)
	for name, tc := range map[string]struct {
		said    time.Duration // after the question was asked
		took    time.Duration
		by      time.Duration
		notable bool
	}{
		"agree":                    {50 * time.Millisecond, 100 * time.Millisecond, 0, false},
		"ahead":                    {90 * time.Second, 0, 90 * time.Second, true},
		"behind":                   {-90 * time.Second, 0, -90 * time.Second, true},
		"within a second":          {900 * time.Millisecond, 0, 900 * time.Millisecond, false},
		"a slow answer is no skew": {4 * time.Second, 4 * time.Second, 2 * time.Second, false},
		"skew in a slow answer":    {9 * time.Second, 4 * time.Second, 7 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := skew.Between(skew.Peer{Datacenter: "us-west"}, at, at.Add(tc.said), at.Add(tc.took))
			require.Equal(t, tc.by, d.By)
			require.Equal(t, tc.notable, d.Notable())
			require.Contains(t, d.Describe(), "datacenter us-west")
		})
	}
}

func TestTheMeterKeepsOnlyWhoAnswers(t *testing.T) {
	clk := clock.NewManual(time.Unix(1000, 0))
	far, near := skew.Peer{Datacenter: "us-west"}, skew.Peer{Datacenter: "us-east", Server: "b"}
	away := false
	registry := prometheus.NewRegistry()
	m := skew.New(skew.Params{
		Peers: func() []skew.Peer { return []skew.Peer{far, near, {Datacenter: "older"}} },
		Ask: func(_ context.Context, p skew.Peer) (time.Time, error) {
			switch {
			case p == near:
				return clk.Now().Add(-2 * time.Second), nil
			case p == far && !away:
				return clk.Now().Add(90 * time.Second), nil
			case p == far:
				return time.Time{}, errors.New("away")
			}
			return time.Time{}, nil // a version that does not say its time
		},
		Clock: clk, Log: slog.New(slog.DiscardHandler), Registerer: registry,
	})
	m.Measure(t.Context())
	notable := m.Notable()
	require.Len(t, notable, 2)
	require.Equal(t, far, notable[0].Peer)
	require.Equal(t, "the clock of server b is 2s behind this server's", notable[1].Describe())
	require.Equal(t, 2, testutil.CollectAndCount(registry, "konsul_clock_difference_seconds"))

	away = true
	m.Measure(t.Context())
	_, known := m.Of(far)
	require.False(t, known, "an old measurement says nothing about now")
	require.Equal(t, 1, testutil.CollectAndCount(registry, "konsul_clock_difference_seconds"))
}
