package lag_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/services/replicator/internal/lag"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func after(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func TestLagGrowsFromTheFirstSecond(t *testing.T) {
	tracker := lag.New(start)
	require.Equal(t, 3*time.Second, tracker.Lag(after(3)))
}

func TestLagGrowsUnderSilence(t *testing.T) {
	tracker := lag.New(start)
	tracker.CaughtUp(after(5))
	require.Equal(t, time.Duration(0), tracker.Lag(after(5)))
	require.Equal(t, 60*time.Second, tracker.Lag(after(65)))
	tracker.CaughtUp(after(66))
	require.Equal(t, time.Second, tracker.Lag(after(67)))
}

func TestAnOlderArrivalDoesNotMakeTheCopyOlder(t *testing.T) {
	tracker := lag.New(start)
	tracker.CaughtUp(after(10))
	tracker.CaughtUp(after(8))
	require.Equal(t, time.Second, tracker.Lag(after(11)))
}

func TestRestartDoesNotMakeAnOldCopyYoung(t *testing.T) {
	tracker := lag.New(start)
	tracker.Resume(after(-3600), start)
	require.Equal(t, time.Hour, tracker.Lag(start))
	tracker.CaughtUp(after(1))
	tracker.Resume(after(-3600), after(2))
	require.Equal(t, time.Second, tracker.Lag(after(2)))
}

func TestProgressOfAnotherReplicatorCounts(t *testing.T) {
	tracker := lag.New(start)
	tracker.CaughtUp(after(1))
	tracker.Resume(after(58), after(60))
	require.Equal(t, 2*time.Second, tracker.Lag(after(60)))
}

func TestASourcesClockThatIsAheadMakesNoNegativeLag(t *testing.T) {
	tracker := lag.New(start)
	tracker.Resume(after(3600), after(10))
	require.Zero(t, tracker.Lag(after(10)))
	require.Equal(t, 5*time.Second, tracker.Lag(after(15)))
	require.Zero(t, tracker.Lag(after(5)))
}

func TestNoStoredTimeChangesNothing(t *testing.T) {
	tracker := lag.New(start)
	tracker.Resume(time.Time{}, after(10))
	require.Equal(t, 10*time.Second, tracker.Lag(after(10)))
}
