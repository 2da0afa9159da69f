package upgrade

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// earlier is the commit whose programs are run beside today's. A change of format that a release is
// to make moves it forward only when that release no longer has to be upgraded to.
const earlier = "16718ca"

// earlierPrograms returns a folder with the ca, the registry and the gateway of the earlier commit.
// They are built once and kept in bin/, which `make clean` removes.
func earlierPrograms(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	programs := filepath.Join(root, "bin", "earlier", earlier)
	if _, err := os.Stat(programs); err == nil {
		return programs
	}
	if err := exec.Command("git", "-C", root, "cat-file", "-e", earlier+"^{commit}").Run(); err != nil {
		shallow, _ := exec.Command("git", "-C", root, "rev-parse", "--is-shallow-repository").Output()
		if strings.TrimSpace(string(shallow)) != "true" {
			require.Empty(t, os.Getenv("CI"), "CI must run the tests of upgrades, but commit %s is not in this clone: %v", earlier, err)
		}
		t.Skipf("commit %s is not in this clone: %v", earlier, err)
	}
	source, made := t.TempDir(), programs+".new"
	require.NoError(t, os.RemoveAll(made))
	require.NoError(t, os.MkdirAll(made, 0o755))
	archive := filepath.Join(source, "source.tar")
	for _, command := range [][]string{
		{"git", "-C", root, "archive", "--output", archive, earlier},
		{"tar", "-x", "-f", archive, "-C", source},
		{
			"go", "build", "-C", source, "-buildvcs=false", "-o", made + "/",
			"./services/ca/cmd/konsul-ca", "./services/registry/cmd/konsul-registry", "./services/gateway/cmd/konsul-gateway",
		},
	} {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", command, out)
	}
	require.NoError(t, os.Rename(made, programs))
	return programs
}
