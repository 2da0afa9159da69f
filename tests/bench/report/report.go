// Package report compares what was measured with what was promised.
package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// Metric is what is compared.
type Metric string

// The metrics.
const (
	// Rate is operations per second: more is better.
	Rate Metric = "ops/s"
	// CPU is the servers' processor time for one operation: less is better.
	CPU Metric = "CPU us/op"
	// Memory is the servers' peak resident memory meanwhile, Resident what they hold afterwards,
	// Disk what their files take, in bytes: less is better.
	Memory   Metric = "peak memory"
	Resident Metric = "memory"
	Disk     Metric = "disk"
	// Seconds is how long something took: less is better.
	Seconds Metric = "seconds"
	// P50 and P99 are latencies in seconds.
	P50 Metric = "p50"
	P99 Metric = "p99"
)

func (m Metric) moreIsBetter() bool { return m == Rate }

// Promise is the floor that a series must not miss.
type Promise struct {
	Line string
	// Clients the promise is for; empty: all that were measured.
	Clients []int
	Metric  Metric
	Series  string
	// Over is the series to divide by; empty: the value itself counts.
	Over  string
	Floor float64
}

// Verdict on a promise.
type Verdict string

// The verdicts. What is within a tenth of its floor is met: so far apart are two runs of the same
// build.
const (
	Missed Verdict = "MISSED"
	Met    Verdict = "ok"
	Near   Verdict = "near"
)

// tolerance is how much of a floor may be missing.
const tolerance = 0.1

// Judge returns how a measured value compares with the floor.
func (p Promise) Judge(measured float64) Verdict {
	reaches := func(bar float64) bool {
		if p.Metric.moreIsBetter() {
			return measured >= bar
		}
		return measured <= bar
	}
	near := p.Floor * (1 + tolerance)
	if p.Metric.moreIsBetter() {
		near = p.Floor * (1 - tolerance)
	}
	switch {
	case reaches(p.Floor):
		return Met
	case reaches(near):
		return Near
	default: // NaN too.
		return Missed
	}
}

// Sample is one measurement of one series.
type Sample map[Metric]float64

// Cell is where samples belong.
type Cell struct {
	Line, Series string
	Clients      int
}

// Book keeps every sample.
type Book struct {
	samples map[Cell][]Sample
	order   []Cell
}

// Add notes a sample.
func (b *Book) Add(c Cell, s Sample) {
	if b.samples == nil {
		b.samples = map[Cell][]Sample{}
	}
	if _, known := b.samples[c]; !known {
		b.order = append(b.order, c)
	}
	b.samples[c] = append(b.samples[c], s)
}

// Value is the median of a cell's samples; NaN when there are none.
func (b *Book) Value(c Cell, m Metric) float64 {
	var values []float64
	for _, s := range b.samples[c] {
		if v, ok := s[m]; ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// Outcome is a promise measured at one number of clients.
type Outcome struct {
	Promise
	At       int
	Measured float64
	Verdict  Verdict
}

// Judge returns the outcome of every promise about which something was measured.
func (b *Book) Judge(promises []Promise) []Outcome {
	var out []Outcome
	for _, p := range promises {
		for _, c := range b.order {
			if c.Line != p.Line || c.Series != p.Series || len(p.Clients) > 0 && !slices.Contains(p.Clients, c.Clients) {
				continue
			}
			measured := b.Value(c, p.Metric)
			if p.Over != "" {
				measured /= b.Value(Cell{c.Line, p.Over, c.Clients}, p.Metric)
			}
			if math.IsNaN(measured) && p.Over != "" {
				continue // The other side was not run.
			}
			out = append(out, Outcome{p, c.Clients, measured, p.Judge(measured)})
		}
	}
	return out
}

// Print writes what was measured, then how it compares with the promises.
func (b *Book) Print(w io.Writer, promises []Promise) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	shown := b.shown()
	fmt.Fprint(t, "line\tclients\tseries")
	for _, c := range shown {
		fmt.Fprintf(t, "\t%s", c.title)
	}
	fmt.Fprintln(t, "\tspread")
	for _, c := range b.order {
		fmt.Fprintf(t, "%s\t%s\t%s", c.Line, clients(c.Clients), c.Series)
		for _, column := range shown {
			fmt.Fprintf(t, "\t%s", number(b.Value(c, column.metric)*column.factor, column.digits))
		}
		fmt.Fprintf(t, "\t%s\n", b.spread(c))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "line\tclients\twhat\tfloor\tmeasured\tverdict")
	for _, o := range b.Judge(promises) {
		what := o.Series
		if o.Over != "" {
			what += " / " + o.Over
		}
		fmt.Fprintf(t, "%s\t%s\t%s, %s\t%.2f\t%.2f\t%s\n", o.Line, clients(o.At), what, o.Metric, o.Floor, o.Measured, o.Verdict)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// column is how a metric is shown.
type column struct {
	metric Metric
	title  string
	factor float64
	digits int
}

// shown returns the columns of which there is anything to show.
func (b *Book) shown() []column {
	const mebi = 1.0 / (1 << 20)
	return slices.DeleteFunc([]column{
		{Rate, "ops/s", 1, 0},
		{CPU, "CPU us/op", 1, 1},
		{Seconds, "seconds", 1, 4},
		{P50, "p50 ms", 1e3, 2},
		{P99, "p99 ms", 1e3, 2},
		{Memory, "peak MiB", mebi, 0},
		{Resident, "MiB", mebi, 0},
		{Disk, "disk MiB", mebi, 0},
	}, func(c column) bool {
		return !slices.ContainsFunc(b.order, func(cell Cell) bool { return !math.IsNaN(b.Value(cell, c.metric)) })
	})
}

// spread is how far the samples of the main metric lie apart, lowest and highest over the median.
func (b *Book) spread(c Cell) string {
	metric := Rate
	if math.IsNaN(b.Value(c, Rate)) {
		metric = Seconds
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range b.samples[c] {
		if v, ok := s[metric]; ok {
			low, high = min(low, v), max(high, v)
		}
	}
	middle := b.Value(c, metric)
	if len(b.samples[c]) < 2 || math.IsNaN(middle) || middle == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f-%.2f", low/middle, high/middle)
}

func clients(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func number(v float64, digits int) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, v)
}
