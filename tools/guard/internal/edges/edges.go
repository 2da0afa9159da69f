package edges

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

// Layers checks the edges between modules, and that replace lines do not make forbidden ones
// possible.
func Layers(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	each(t, func(p *tree.Package, f *tree.GoFile, i tree.Import) {
		dir, ours := strings.CutPrefix(i.Path, tree.Prefix)
		if !ours {
			return
		}
		if remedy, ok := mayImport(layer(p.Dir), layer(dir)); !ok {
			findings = append(findings, at(f, i, "layers", fmt.Sprintf("%s imports %s", layer(p.Dir), i.Path), remedy))
		}
	})
	for _, m := range t.Modules {
		for _, r := range m.Mod.Replace {
			dir, ours := strings.CutPrefix(r.Old.Path, tree.Prefix)
			if !ours {
				continue
			}
			if remedy, ok := mayImport(layer(m.Dir), layer(dir)); !ok {
				findings = append(findings, tree.Finding{
					File: path.Join(m.Dir, "go.mod"), Line: r.Syntax.Start.Line, Rule: "layers",
					Message: fmt.Sprintf("%s replaces %s", layer(m.Dir), r.Old.Path), Remedy: "drop the line: " + remedy,
				})
			}
		}
	}
	return findings
}

// TestPackages checks that production files import nothing that is there for tests.
func TestPackages(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	each(t, func(p *tree.Package, f *tree.GoFile, i tree.Import) {
		if f.Test || p.TestOnly() || layer(p.Dir) == "tests" || !forTests(i.Path) {
			return
		}
		findings = append(findings, at(f, i, "test-packages", fmt.Sprintf("a production file imports %s", i.Path),
			"move what production needs out of it, or move this file to a *test package"))
	})
	return findings
}

func forTests(importPath string) bool {
	switch {
	case importPath == "testing", strings.HasPrefix(importPath, "testing/"), importPath == "net/http/httptest",
		strings.HasPrefix(importPath, "github.com/stretchr/testify"), strings.HasPrefix(importPath, "go.uber.org/goleak"),
		strings.HasPrefix(importPath, "go.uber.org/fx/fxtest"), strings.HasPrefix(importPath, "pgregory.net/rapid"):
		return true
	}
	return strings.HasPrefix(importPath, tree.Prefix) && tree.IsTestName(path.Base(importPath))
}

// Rooms checks the edges inside a service: cmd → front door → api → core, and edges → core.
func Rooms(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	each(t, func(p *tree.Package, f *tree.GoFile, i tree.Import) {
		name, from, ok := service(p.Dir)
		if !ok || f.Test || p.TestOnly() {
			return
		}
		target, to, ok := service(strings.TrimPrefix(i.Path, tree.Prefix))
		if !ok || target != name || !strings.HasPrefix(i.Path, tree.Prefix) {
			return
		}
		if remedy := roomEdge(name, from, to); remedy != "" {
			findings = append(findings, at(f, i, "rooms", fmt.Sprintf("%s imports %s", room(from), room(to)), remedy))
		}
	})
	return findings
}

func room(dir string) string {
	if dir == "" {
		return "the front door"
	}
	return dir
}

// roomEdge returns what to do instead of an edge between two rooms of a service, empty when it is
// allowed.
func roomEdge(service, from, to string) string {
	if from == to || from == "" {
		return ""
	}
	isCore := func(dir string) bool { return slices.Contains(core(service), internal(dir)) }
	switch {
	case strings.HasPrefix(from, "cmd/"):
		if to != "" {
			return "a main knows the front door only: flags, configuration, Module, exit code"
		}
	case to == "" || strings.HasPrefix(to, "cmd/"):
		return "the front door imports the rooms, never the other way round: take what is needed in a constructor"
	case isCore(from) && !isCore(to):
		return "the core knows no edge: declare the small interface it needs here"
	case internal(to) == "api" && internal(from) != "api":
		return "nothing but the front door imports api: move what both need into the core"
	case internal(from) == "api" && slices.Contains(rim(service), internal(to)):
		return "api knows no edge: declare the small interface it needs here, and let the front door pass the edge in"
	}
	return ""
}

// internal returns which internal package of a service a folder belongs to, empty when to none.
func internal(dir string) string {
	rest, ok := strings.CutPrefix(dir, "internal/")
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

// Quiet checks that core packages know neither frameworks nor the world: no clock, socket, disk or
// chance.
func Quiet(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	for _, p := range t.Packages {
		name, from, ok := service(p.Dir)
		if !ok || p.TestOnly() || !slices.Contains(core(name), internal(from)) {
			continue
		}
		for _, f := range p.Files {
			if !f.Test {
				findings = append(findings, quiet(t, f)...)
			}
		}
	}
	return findings
}

func quiet(t *tree.Tree, f *tree.GoFile) []tree.Finding {
	var findings []tree.Finding
	imported := map[string]string{}
	for _, i := range t.Imports(f) {
		imported[i.Name] = i.Path
		if remedy := foreign(i.Path); remedy != "" {
			findings = append(findings, at(f, i, "quiet-core", "a core package imports "+i.Path, remedy))
		}
	}
	ast.Inspect(f.Syntax, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := selector.X.(*ast.Ident); ok {
			if remedy := ambient(imported[pkg.Name], selector.Sel.Name); remedy != "" {
				findings = append(findings, tree.Finding{
					File: f.Name, Line: t.Line(selector), Rule: "quiet-core",
					Message: fmt.Sprintf("a core package uses %s.%s", pkg.Name, selector.Sel.Name), Remedy: remedy,
				})
			}
		}
		return true
	})
	return findings
}

// Fx checks that fx appears only in mains, front doors, an edge's fx.go and pkg/konsulfx.
func Fx(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	each(t, func(p *tree.Package, f *tree.GoFile, i tree.Import) {
		if i.Path != "go.uber.org/fx" && !strings.HasPrefix(i.Path, "go.uber.org/fx/") {
			return
		}
		_, from, isService := service(p.Dir)
		frontDoor := isService && from == ""
		if f.Test || p.TestOnly() || frontDoor || p.Name() == "main" || p.Dir == "pkg/konsulfx" || path.Base(f.Name) == "fx.go" {
			return
		}
		findings = append(findings, at(f, i, "fx", "fx outside mains, front doors and fx.go",
			"write New(cfg, deps) as plain Go and give it to fx in the front door or in a file fx.go"))
	})
	return findings
}

func each(t *tree.Tree, visit func(*tree.Package, *tree.GoFile, tree.Import)) {
	for _, p := range t.Packages {
		for _, f := range p.Files {
			for _, i := range t.Imports(f) {
				visit(p, f, i)
			}
		}
	}
}

func at(f *tree.GoFile, i tree.Import, rule, message, remedy string) tree.Finding {
	return tree.Finding{File: f.Name, Line: i.Line, Rule: rule, Message: message, Remedy: remedy}
}
