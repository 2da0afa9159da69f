package report_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/bench/report"
)

func TestVerdicts(t *testing.T) {
	faster := report.Promise{Metric: report.Rate, Floor: 1.2}
	smaller := report.Promise{Metric: report.Memory, Floor: 1.5}
	for name, c := range map[string]struct {
		promise  report.Promise
		measured float64
		want     report.Verdict
	}{
		"far below the floor":   {faster, 1.07, report.Missed},
		"nearly on the floor":   {faster, 1.09, report.Near},
		"on the floor":          {faster, 1.2, report.Met},
		"far above the ceiling": {smaller, 1.66, report.Missed},
		"nearly the ceiling":    {smaller, 1.64, report.Near},
		"under the ceiling":     {smaller, 1.5, report.Met},
		"nothing was measured":  {faster, math.NaN(), report.Missed},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, c.promise.Judge(c.measured)) })
	}
}

func TestRatiosAreOfMedians(t *testing.T) {
	var b report.Book
	for _, rate := range []float64{100, 900, 200} {
		b.Add(report.Cell{Line: "puts", Series: "ours", Clients: 1}, report.Sample{report.Rate: rate})
	}
	for _, rate := range []float64{50, 60, 100} {
		b.Add(report.Cell{Line: "puts", Series: "theirs", Clients: 1}, report.Sample{report.Rate: rate})
	}
	b.Add(report.Cell{Line: "puts", Series: "ours", Clients: 16}, report.Sample{report.Rate: 7})
	promises := []report.Promise{
		{Line: "puts", Metric: report.Rate, Series: "ours", Over: "theirs", Floor: 2},
		{Line: "puts", Metric: report.Rate, Series: "ours", Clients: []int{16}, Floor: 8},
		{Line: "gets", Metric: report.Rate, Series: "ours", Floor: 8},
	}
	outcomes := b.Judge(promises)
	require.Len(t, outcomes, 2, "nothing is said about what was not measured on both sides")
	require.InDelta(t, 200.0/60, outcomes[0].Measured, 1e-9)
	require.Equal(t, report.Met, outcomes[0].Verdict)
	require.Equal(t, 16, outcomes[1].At)
	require.Equal(t, report.Missed, outcomes[1].Verdict)
	require.True(t, math.IsNaN(b.Value(report.Cell{Line: "puts", Series: "ours", Clients: 1}, report.CPU)))
}

func TestTheTableShowsWhatThereIs(t *testing.T) {
	var b report.Book
	b.Add(report.Cell{Line: "start", Series: "ours"}, report.Sample{report.Seconds: 0.5})
	b.Add(report.Cell{Line: "start", Series: "ours"}, report.Sample{report.Seconds: 1})
	b.Add(report.Cell{Line: "puts", Series: "ours", Clients: 64}, report.Sample{report.Rate: 1234.4, report.Memory: 3 << 20})
	var out strings.Builder
	require.NoError(t, b.Print(&out, []report.Promise{{Line: "start", Metric: report.Seconds, Series: "ours", Floor: 1}}))
	require.Equal(t, `line   clients  series  ops/s  seconds  peak MiB  spread
start  -        ours    -      0.7500   -         0.67-1.33
puts   64       ours    1234   -        3         -

line   clients  what           floor  measured  verdict
start  -        ours, seconds  1.00   0.75      ok
`, out.String())
}
