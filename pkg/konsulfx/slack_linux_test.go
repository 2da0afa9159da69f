package konsulfx_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"konsul.dev/pkg/konsulfx"
)

// slackOfChild, when set, makes the test below the program whose slack is looked at.
const slackOfChild = "KONSUL_TEST_SLACK_OF_CHILD"

func TestTimerSlackIsSetUnlessSomebodyElseHasSetIt(t *testing.T) {
	if os.Getenv(slackOfChild) != "" {
		konsulfx.SetTimerSlack()
		slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		fmt.Printf("slack %d %v\n", slack, err)
		return
	}
	for name, c := range map[string]struct{ given, want int }{
		"the kernel's":  {50_000, 1_000_000},
		"an operator's": {70_000, 70_000},
	} {
		t.Run(name, func(t *testing.T) {
			// A process inherits the slack of the thread that starts it. This one is not given back, so that it ends with the test.
			runtime.LockOSThread()
			require.NoError(t, unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(c.given), 0, 0, 0)) //nolint:gosec // a small number
			child := exec.Command(os.Args[0], "-test.run=^TestTimerSlackIsSetUnlessSomebodyElseHasSetIt$")
			child.Env = append(os.Environ(), slackOfChild+"=1")
			out, err := child.Output()
			require.NoError(t, err)
			first, _, _ := strings.Cut(string(out), "\n")
			require.Equal(t, fmt.Sprintf("slack %d <nil>", c.want), first)
		})
	}
}
