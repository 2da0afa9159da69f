// Package treetest runs a rule over trees written down in txtar archives.
//
// An archive below testdata is a small checkout that breaks a rule. Its file `want` lists the
// findings the rule must make, one per line, without the remedy; an archive without it must pass.
package treetest

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"konsul.dev/tools/guard/internal/tree"
)

// Read reads one archive as a tree, and what it wants.
func Read(t *testing.T, file string) (*tree.Tree, []string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	require.NoError(t, err)
	var names, want []string
	for _, f := range archive.Files {
		if f.Name == "want" {
			want = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
			continue
		}
		names = append(names, f.Name)
	}
	files, err := txtar.FS(archive)
	require.NoError(t, err)
	checkout, err := tree.Read(files, names)
	require.NoError(t, err)
	return checkout, want
}

// Run runs a rule over every archive that matches the pattern.
func Run(t *testing.T, pattern string, rule func(*tree.Tree) []tree.Finding) {
	t.Helper()
	archives, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, archives, "no archive matches %s", pattern)
	for _, file := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			checkout, want := Read(t, file)
			findings := rule(checkout)
			tree.Sort(findings)
			var got []string
			for _, f := range findings {
				require.NotEmpty(t, f.Remedy, "a finding says what to do instead: %s", f)
				got = append(got, strings.TrimSuffix(f.String(), "; "+f.Remedy))
			}
			require.Equal(t, want, got)
		})
	}
}
