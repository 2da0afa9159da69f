package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/framework"
)

// TestTheREADMEIsTrue runs what the README tells a newcomer to type, as it stands there.
func TestTheREADMEIsTrue(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	blocks := map[string]string{}
	for _, match := range regexp.MustCompile("(?s)<!-- (\\w+) -->\n```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks[match[1]] = match[2]
	}
	lab := framework.StartLab(t, framework.LabOptions{})
	root := stage(t, lab)
	suggested := strings.NewReplacer(lab.Dir, ".lab", filepath.Dir(framework.Bin(t, "konsulctl")), "bin").Replace(lab.Output())
	for _, line := range commands(blocks["try"]) {
		require.Contains(t, suggested, line, "the lab suggests what the README does")
	}
	out := run(t, root, blocks["try"])
	require.Contains(t, out, "v2.0")

	if _, err := exec.LookPath("curl"); err == nil {
		require.Contains(t, run(t, root, ". .lab/us-west.env\n"+blocks["rest"]), "v2.0")
	}
	out = run(t, root, ". .lab/us-west.env\n"+blocks["disaster"])
	require.Contains(t, out, "unreachable")

	makefile, err := os.ReadFile("../../Makefile")
	require.NoError(t, err)
	for _, line := range commands(blocks["layouts"] + "make lab\nmake test\nmake help\nmake verify\n") {
		target := strings.Fields(line)[1]
		require.Regexp(t, `(?m)^`+regexp.QuoteMeta(target)+`:`, string(makefile), "README names a target the Makefile lacks")
	}
}

// stage is a folder that looks like the repository's root to the README's commands.
func stage(t *testing.T, lab *framework.Lab) string {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.Symlink(lab.Dir, filepath.Join(root, ".lab")))
	require.NoError(t, os.Symlink(filepath.Dir(framework.Bin(t, "konsulctl")), filepath.Join(root, "bin")))
	return root
}

func commands(block string) []string {
	var lines []string
	for line := range strings.Lines(block) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// run runs a block as a shell would, ending at the first command that fails.
func run(t *testing.T, dir, block string) string {
	t.Helper()
	cmd := exec.Command("bash", "-eu", "-c", block)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoErrorf(t, err, "%s\n%s", block, out)
	return string(out)
}
