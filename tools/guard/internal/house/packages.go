package house

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

// PackageDocs checks that every package has one package doc: what it promises, what it does not,
// who may call it concurrently. A package of tests only has it in one of its test files.
func PackageDocs(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	for _, p := range t.Packages {
		if p.Generated() {
			continue
		}
		production := slices.ContainsFunc(p.Files, func(f *tree.GoFile) bool { return !f.Test })
		var documented []*tree.GoFile
		for _, f := range p.Files {
			if f.Test == production || f.Generated {
				continue
			}
			if f.Syntax.Doc != nil && strings.TrimSpace(f.Syntax.Doc.Text()) != "" {
				documented = append(documented, f)
			}
		}
		if len(documented) == 0 {
			findings = append(findings, tree.Finding{
				File: p.Dir, Rule: "package-doc", Message: "package " + p.Name() + " has no package doc",
				Remedy: "say in one file, doc.go or the main one, what it promises, what it does not, and who may call it concurrently",
			})
			continue
		}
		for _, f := range documented[1:] {
			findings = append(findings, tree.Finding{
				File: f.Name, Line: t.Line(f.Syntax), Rule: "package-doc",
				Message: fmt.Sprintf("package %s has a second package doc, the first is in %s", p.Name(), path.Base(documented[0].Name)),
				Remedy:  "keep one",
			})
		}
	}
	return findings
}

// PackageNames checks that a package's name says something, is its folder's, and hides no package
// of the standard library.
func PackageNames(t *tree.Tree) []tree.Finding {
	vague := []string{"util", "utils", "common", "misc", "type", "types", "helper", "helpers", "lib", "stuff", "tools"}
	standard := []string{
		"bufio", "bytes", "cmp", "context", "crypto", "debug", "embed", "errors", "exec", "expvar", "filepath", "flag", "fmt", "hash",
		"html", "http", "io", "iter", "json", "log", "maps", "math", "mime", "net", "os", "path", "rand", "reflect", "regexp",
		"runtime", "signal", "slices", "slog", "sort", "strconv", "strings", "sync", "syscall", "testing", "time", "tls", "unicode", "url", "x509", "atomic",
	}
	var findings []tree.Finding
	for _, p := range t.Packages {
		name := p.Name()
		bad := func(message, remedy string) {
			findings = append(findings, tree.Finding{File: p.Dir, Rule: "package-name", Message: message, Remedy: remedy})
		}
		switch {
		case p.Generated() || name == "main":
		case slices.Contains(vague, name):
			bad("package "+name+" says nothing about what it holds", "name it for its one idea, a noun that reads well before the dot")
		case slices.Contains(standard, name):
			bad("package "+name+" hides the standard library's", "take a noun of the domain")
		case name != strings.ReplaceAll(path.Base(p.Dir), "-", "") && p.Dir != p.Module.Dir:
			bad("package "+name+" is not named as its folder", "give both one name")
		}
	}
	return findings
}
