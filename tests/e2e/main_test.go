package e2e

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"konsul.dev/tests/framework"
)

// TestMain fails a whole run if REST has a route that no test called.
func TestMain(m *testing.M) {
	code := m.Run()
	whole := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" && !testing.Short()
	if missing := framework.Uncalled(); code == 0 && whole && len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "no test called these over REST:\n%s\n", strings.Join(missing, "\n"))
		code = 1
	}
	os.Exit(code)
}
