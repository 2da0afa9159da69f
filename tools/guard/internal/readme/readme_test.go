package readme_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/guard/internal/readme"
	"konsul.dev/tools/guard/internal/tree/treetest"
)

func TestSomethingRunsEveryCommand(t *testing.T) {
	treetest.Run(t, "testdata/*.txtar", readme.Check)
}

func TestPrintGivesTheNamedBlock(t *testing.T) {
	checkout, _ := treetest.Read(t, "testdata/commands.txtar")
	var out strings.Builder
	require.NoError(t, readme.Print(checkout, []string{"try"}, &out))
	require.Equal(t, ". .lab/us-west.env\nbin/konsulctl datacenter list\n", out.String())
	require.ErrorContains(t, readme.Print(checkout, []string{"absent"}, &out), "absent")
}
