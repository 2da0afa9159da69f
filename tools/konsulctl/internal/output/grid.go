package output

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Grid writes aligned columns. What services and people put into the catalogue cannot break out of
// its cell, nor reach the terminal as a control sequence. The first error is kept until Flush.
type Grid struct {
	out     io.Writer
	columns *tabwriter.Writer
	err     error
}

// NewGrid makes a grid. Flush it when done.
func NewGrid(w io.Writer) *Grid {
	return &Grid{out: w, columns: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

// Row writes one row. Empty cells become "-".
func (g *Grid) Row(cells ...string) {
	for i, cell := range cells {
		if cells[i] = Cell(cell); cell == "" {
			cells[i] = "-"
		}
	}
	g.keep(fmt.Fprintln(g.columns, strings.Join(cells, "\t")))
}

// Line writes text outside of any column and starts a new set of columns. Strings are made fit like
// cells.
func (g *Grid) Line(format string, args ...any) {
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = Cell(text)
		}
	}
	g.keep(0, g.columns.Flush())
	g.keep(fmt.Fprintf(g.out, format+"\n", args...))
}

// Flush writes what is held back and returns the first error.
func (g *Grid) Flush() error {
	g.keep(0, g.columns.Flush())
	return g.err
}

func (g *Grid) keep(_ int, err error) {
	if g.err == nil && err != nil {
		g.err = fmt.Errorf("write: %w", err)
	}
}

// Cell returns text fit for one line of a terminal: as it is if it can be printed, else quoted.
func Cell(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	return strconv.Quote(text)
}

// Printable returns text with all that cannot be printed on one line of a terminal escaped, and the
// rest as it is.
func Printable(text string) string {
	var out strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, text[0])
		case unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			out.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		text = text[size:]
	}
	return out.String()
}

// Clip shortens text to at most n runes.
func Clip(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}

// RoundTrip returns a measured round trip as people say it, "0.3ms" or "95ms"; empty when there is
// none.
func RoundTrip(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	switch rtt := d.AsDuration(); {
	case rtt == 0:
		return "0ms"
	case rtt < 100*time.Microsecond:
		return "<0.1ms"
	case rtt < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(rtt)/float64(time.Millisecond))
	case rtt < time.Second:
		return fmt.Sprintf("%dms", rtt.Round(time.Millisecond).Milliseconds())
	default:
		return fmt.Sprintf("%.1fs", rtt.Seconds())
	}
}

// Time returns a moment to the second, in UTC; empty when there is none.
func Time(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
