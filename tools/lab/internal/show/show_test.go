package show_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/lab/internal/control"
	"konsul.dev/tools/lab/internal/show"
)

func TestFederation(t *testing.T) {
	var out bytes.Buffer
	show.Federation(&out, []show.Row{
		{Name: "us-east", Primary: true, URL: "https://127.0.27.1:8500", State: "alive", Processes: 3},
		{Name: "us-west", URL: "https://127.0.27.2:8500", State: "alive", RoundTrip: 1234567 * time.Nanosecond, Measured: true, Processes: 3},
	})
	require.Equal(t, `
DATACENTER   ROLE        HTTP                      STATE   ROUND TRIP   PROCESSES
us-east      primary     https://127.0.27.1:8500   alive   -            3
us-west      secondary   https://127.0.27.2:8500   alive   1.23ms       3
`, out.String())
}

func TestTryNamesTheProgramsAndTheSettings(t *testing.T) {
	var out bytes.Buffer
	show.Try(&out, "/elsewhere/.lab", "/elsewhere/bin")
	require.Contains(t, out.String(), "  . /elsewhere/.lab/us-west.env\n")
	readme, err := os.ReadFile("../../../../README.md")
	require.NoError(t, err)
	require.Len(t, show.Commands(), 5)
	for _, command := range show.Commands() {
		require.Contains(t, out.String(), "  /elsewhere/bin/konsulctl "+command+"\n")
		require.Contains(t, string(readme), "\nbin/konsulctl "+command+"\n", "the lab and the README say the same")
	}
}

func TestStatusTellsTheDeadFromTheStopped(t *testing.T) {
	var out bytes.Buffer
	show.Status(&out, []control.Datacenter{
		{Name: "us-east", Primary: true, URL: "u", Processes: []control.Process{
			{Name: "konsul-dc", PID: 7, Running: true}, {Name: "api", PID: 8},
		}},
		{Name: "us-west", URL: "v"},
	})
	require.Equal(t, `DATACENTER   ROLE        HTTP   PROCESS     PID   STATE
us-east      primary     u      konsul-dc   7     running
us-east      primary     u      api         8     dead
us-west      secondary   v      -           -     stopped
`, out.String())
}
