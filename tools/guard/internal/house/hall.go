package house

import (
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

// Halls checks that every service has the same front hall, so that a stranger knows where to go.
func Halls(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	for _, m := range t.Modules {
		name, ok := strings.CutPrefix(m.Dir, "services/")
		if !ok {
			continue
		}
		for file, remedy := range map[string]string{
			"README.md":                       "say what it is for, how to run it alone, and what to look at when it is ill",
			"DESIGN.md":                       "say its purpose, invariants, failure modes, and trade-offs made on purpose",
			"config.example.yaml":             "show every setting with its default; a test loads it",
			"cmd/konsul-" + name + "/main.go": "one line: konsulfx.Main with the front door's DefaultConfig and Module",
		} {
			if _, ok := t.File(m.Dir + "/" + file); !ok {
				findings = append(findings, tree.Finding{File: m.Dir + "/" + file, Rule: "front-hall", Message: "is missing", Remedy: remedy})
			}
		}
	}
	return findings
}
