package house

import (
	"go/ast"
	"slices"

	"konsul.dev/tools/guard/internal/tree"
)

// Sleeps checks that nothing calls time.Sleep. A test file that uses testing/synctest may: in a
// bubble it moves a clock of the test's own and costs no time.
func Sleeps(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	for _, p := range t.Packages {
		for _, f := range p.Files {
			imports := t.Imports(f)
			if f.Generated || f.Test && slices.ContainsFunc(imports, func(i tree.Import) bool { return i.Path == "testing/synctest" }) {
				continue
			}
			remedy := "wait for the context too: backoff.Wait, or a timer in a select"
			if f.Test {
				remedy = "wait for a condition with a deadline, or use testing/synctest"
			}
			ast.Inspect(f.Syntax, func(n ast.Node) bool {
				selector, ok := n.(*ast.SelectorExpr)
				if !ok || selector.Sel.Name != "Sleep" {
					return true
				}
				if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "time" {
					findings = append(findings, tree.Finding{File: f.Name, Line: t.Line(selector), Rule: "sleep", Message: "time.Sleep", Remedy: remedy})
				}
				return true
			})
		}
	}
	return findings
}
