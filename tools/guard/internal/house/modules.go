package house

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/mod/semver"

	"konsul.dev/tools/guard/internal/tree"
)

// Workspace checks that go.work uses every module but the pinned tools, and that each module's path
// is its folder's.
func Workspace(t *tree.Tree) []tree.Finding {
	used := map[string]bool{}
	if t.Work != nil {
		for _, use := range t.Work.Use {
			used[path.Clean(use.Path)] = true
		}
	}
	var findings []tree.Finding
	for _, m := range t.Modules {
		file := path.Join(m.Dir, "go.mod")
		if want := tree.Prefix + m.Dir; m.Path() != want {
			findings = append(findings, tree.Finding{
				File: file, Line: m.Mod.Module.Syntax.Start.Line, Rule: "workspace",
				Message: "module " + m.Path() + " is not named as its folder", Remedy: "name it " + want,
			})
		}
		if pinned(m) == used[m.Dir] {
			message, remedy := "go.work does not use "+m.Dir, "run go work use ./"+m.Dir
			if pinned(m) {
				message, remedy = "go.work uses "+m.Dir, "drop it: pinned tools keep versions of their own"
			}
			findings = append(findings, tree.Finding{File: file, Rule: "workspace", Message: message, Remedy: remedy})
		}
	}
	return findings
}

// Versions checks that all modules need one version of each dependency: the workspace would build
// with the newest anyway, and each module alone with another.
func Versions(t *tree.Tree) []tree.Finding {
	newest := map[string]string{}
	for _, m := range t.Modules {
		if pinned(m) {
			continue
		}
		for _, r := range m.Mod.Require {
			if semver.Compare(r.Mod.Version, newest[r.Mod.Path]) > 0 {
				newest[r.Mod.Path] = r.Mod.Version
			}
		}
	}
	var findings []tree.Finding
	for _, m := range t.Modules {
		if pinned(m) {
			continue
		}
		for _, r := range m.Mod.Require {
			if want := newest[r.Mod.Path]; r.Mod.Version != want && !strings.HasPrefix(r.Mod.Path, tree.Prefix) {
				findings = append(findings, tree.Finding{
					File: path.Join(m.Dir, "go.mod"), Line: r.Syntax.Start.Line, Rule: "versions",
					Message: fmt.Sprintf("%s %s, another module has %s", r.Mod.Path, r.Mod.Version, want),
					Remedy:  "run make fix-tidy",
				})
			}
		}
	}
	return findings
}

// pinned reports whether a module pins a tool.
func pinned(m *tree.Module) bool {
	return strings.HasPrefix(m.Dir, "tools/dev/")
}
