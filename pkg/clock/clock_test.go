package clock_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
)

func TestManualWakesOnlyThoseWhoseTimeHasCome(t *testing.T) {
	m := clock.NewManual(time.Unix(0, 0))
	early, late := m.After(time.Second), m.After(time.Minute)

	m.Advance(2 * time.Second)

	require.Len(t, early, 1)
	require.Empty(t, late)
	require.Equal(t, time.Unix(2, 0), m.Now())
}
