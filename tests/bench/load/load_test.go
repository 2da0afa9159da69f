package load

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPercentileAnswersASampleThatExists(t *testing.T) {
	samples := []int{5, 1, 4, 2, 3}
	for p, want := range map[float64]int{0: 1, 20: 1, 21: 2, 50: 3, 99: 5, 100: 5} {
		require.Equal(t, want, Percentile(samples, p), "p%v", p)
	}
	require.Equal(t, []int{5, 1, 4, 2, 3}, samples, "the samples stay as they are")
	require.Zero(t, Percentile([]int(nil), 50))
	require.Equal(t, 2, Median([]int{3, 1, 2}))
	require.Equal(t, 1, Median([]int{1, 2}))
}

func TestOnlyWhatEndedInTheWindowCounts(t *testing.T) {
	begin := time.Now()
	w := window{begin: begin, end: begin.Add(time.Second)}
	require.True(t, w.contains(begin))
	require.False(t, w.contains(begin.Add(-1)))
	require.False(t, w.contains(w.end))
}

func TestSummaryAddsClients(t *testing.T) {
	r := summarise([]client{
		{latencies: []time.Duration{time.Millisecond, 3 * time.Millisecond}},
		{latencies: []time.Duration{2 * time.Millisecond, 9 * time.Millisecond}, errors: 1, err: errors.New("refused")},
	}, 2*time.Second, 8*time.Millisecond)
	require.Equal(t, Result{
		Ops: 4, Errors: 1, Error: "refused", Rate: 2, CPU: 2000, P50: 2 * time.Millisecond, P99: 9 * time.Millisecond,
	}, r)
}

func TestStatIsReadBehindANameWithSpaces(t *testing.T) {
	used, err := parseStat([]byte("42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0"))
	require.NoError(t, err)
	require.Equal(t, 1750*time.Millisecond, used)
	_, err = parseStat([]byte("42 (x) S 1"))
	require.ErrorContains(t, err, "too few")
}

func TestMemoryIsReadInBytes(t *testing.T) {
	const status = "VmPeak:\t  900 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 10 kB\n"
	for field, want := range map[string]uint64{"VmHWM:": 2 << 20, "VmRSS:": 10 << 10} {
		bytes, err := parseMemory(status, field)
		require.NoError(t, err)
		require.Equal(t, want, bytes)
	}
	_, err := parseMemory(status, "VmSwap:")
	require.ErrorContains(t, err, "VmSwap")
}
