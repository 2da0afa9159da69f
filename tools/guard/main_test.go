package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"
)

// repository makes a git repository of testdata/checkout.txtar.
func repository(t *testing.T) string {
	t.Helper()
	archive, err := txtar.ParseFile("testdata/checkout.txtar")
	require.NoError(t, err)
	root := t.TempDir()
	require.NoError(t, exec.CommandContext(t.Context(), "git", "init", "--quiet", root).Run())
	for _, file := range archive.Files {
		name := filepath.Join(root, file.Name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, file.Data, 0o600))
	}
	return root
}

func TestCheckReportsOnlyTheNamedRulesAndPassesOverWhatGitIgnores(t *testing.T) {
	root := repository(t)
	var out strings.Builder
	err := run(t.Context(), []string{"-C", root, "check", "todo"}, &out)
	require.ErrorIs(t, err, errBroken)
	require.Contains(t, out.String(), "pkg/util/a.go:3: todo:")
	require.Contains(t, out.String(), "pkg/clock/b.go: parse:")
	require.NotContains(t, out.String(), "bin/ignored.txt")
	require.NotContains(t, out.String(), "package-name")

	require.ErrorContains(t, run(t.Context(), []string{"-C", root, "check", "absent"}, &out), `unknown rule "absent"`)
	require.ErrorContains(t, run(t.Context(), []string{"-C", root, "dance"}, &out), `unknown command "dance"`)
}

func TestFixDocsMakesTheDocsRulesPass(t *testing.T) {
	root := repository(t)
	require.NoError(t, os.RemoveAll(filepath.Join(root, "pkg/clock")), "what does not parse fails every check")
	var out strings.Builder
	require.ErrorIs(t, run(t.Context(), []string{"-C", root, "check", "errors", "metrics"}, &out), errBroken)
	require.NoError(t, run(t.Context(), []string{"-C", root, "fix-docs"}, &out))
	require.NoError(t, run(t.Context(), []string{"-C", root, "check", "errors", "metrics"}, &out), out.String())
}

func TestRulesListsWhatCheckKnows(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"rules"}, &out))
	for _, r := range rules(t.TempDir()) {
		require.Contains(t, out.String(), r.name+" ")
	}
}
