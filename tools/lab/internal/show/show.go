// Package show renders what the lab tells the person in front of it. It writes and decides nothing
// else.
package show

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"konsul.dev/tools/lab/internal/control"
)

// Row is a datacenter in the table of the federation.
type Row struct {
	Name      string
	Primary   bool
	URL       string
	State     string
	RoundTrip time.Duration
	// Measured reports whether RoundTrip means something.
	Measured  bool
	Processes int
}

// Federation prints the table of datacenters.
func Federation(out io.Writer, rows []Row) {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "\nDATACENTER\tROLE\tHTTP\tSTATE\tROUND TRIP\tPROCESSES")
	for _, r := range rows {
		roundTrip := "-"
		if r.Measured {
			roundTrip = r.RoundTrip.Round(10 * time.Microsecond).String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\n", r.Name, role(r.Primary), r.URL, r.State, roundTrip, r.Processes)
	}
	// A terminal that is gone has nobody to tell.
	_ = table.Flush()
}

// Try prints five commands worth trying; they are those of the README.
func Try(out io.Writer, dir, bin string) {
	ctl := filepath.Join(relative(bin), "konsulctl")
	fmt.Fprintf(out, "\nTry, in another terminal:\n\n  . %s\n", filepath.Join(relative(dir), "us-west.env"))
	for _, args := range Commands() {
		fmt.Fprintf(out, "  %s %s\n", ctl, args)
	}
	fmt.Fprintln(out, "\nCtrl-C stops the lab and removes what it made.")
	fmt.Fprintln(out)
}

// Commands returns the arguments of the five commands.
func Commands() []string {
	return []string{
		"datacenter list",
		"service get api --all-datacenters",
		"kv set --global config/app/version v2.0",
		"kv get --datacenter eu-central config/app/version",
		"service get payment-api --failover us-west,eu-central",
	}
}

// Status prints every process of every datacenter.
func Status(out io.Writer, datacenters []control.Datacenter) {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "DATACENTER\tROLE\tHTTP\tPROCESS\tPID\tSTATE")
	for _, dc := range datacenters {
		if len(dc.Processes) == 0 {
			fmt.Fprintf(table, "%s\t%s\t%s\t-\t-\tstopped\n", dc.Name, role(dc.Primary), dc.URL)
		}
		for _, p := range dc.Processes {
			state := "running"
			if !p.Running {
				state = "dead"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", dc.Name, role(dc.Primary), dc.URL, p.Name, p.PID, state)
		}
	}
	// A terminal that is gone has nobody to tell.
	_ = table.Flush()
}

func role(primary bool) string {
	if primary {
		return "primary"
	}
	return "secondary"
}

// relative shortens a path below the working directory, as a person would type it.
func relative(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	short, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(short, "..") {
		return path
	}
	return short
}
