package house

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"konsul.dev/tools/guard/internal/tree"
)

const (
	// columns is how wide comments and prose may be.
	columns = 100
	// tab is how wide a tab counts.
	tab = "    "
)

// answering is a doc comment that says answers where the field says returns.
var answering = regexp.MustCompile(`^\s*// [\w.]+ (answers|says whether)\b`)

// Columns checks that comment lines of Go and proto files and lines of prose keep to 100 columns,
// and that doc comments say "returns" and "reports whether". Tables, code and words without a space
// to break at are as wide as they are.
func Columns(t *tree.Tree) []tree.Finding {
	var findings []tree.Finding
	for _, f := range t.Files {
		kind := path.Ext(f.Name)
		if f.Generated || strings.Contains(f.Name, "testdata/") || strings.HasPrefix(f.Name, "proto/third_party/") || kind != ".go" && kind != ".proto" && kind != ".md" {
			continue
		}
		code := false // inside of a raw string of Go, or a block of code of Markdown
		number := 0
		for line := range bytes.Lines(f.Text) {
			number++
			text := strings.TrimRight(string(line), "\n")
			switch {
			case kind == ".md" && strings.HasPrefix(strings.TrimSpace(text), "```"):
				code = !code
				continue
			case code || kind == ".md" && (strings.HasPrefix(text, "|") || strings.HasPrefix(text, tab)), kind != ".md" && !strings.HasPrefix(strings.TrimSpace(text), "//"):
				if kind == ".go" && strings.Count(text, "`")%2 == 1 {
					code = !code
				}
				continue
			}
			if width := utf8.RuneCountInString(strings.ReplaceAll(text, "\t", tab)); width > columns && breaks(text) {
				findings = append(findings, tree.Finding{
					File: f.Name, Line: number, Rule: "columns", Message: fmt.Sprintf("is %d columns wide", width), Remedy: fmt.Sprintf("break it at %d", columns),
				})
			}
			if kind == ".go" && answering.MatchString(text) {
				findings = append(findings, tree.Finding{
					File: f.Name, Line: number, Rule: "columns", Message: "says answers or says whether", Remedy: `say "returns" or "reports whether"`,
				})
			}
		}
	}
	return findings
}

// breaks reports whether a line may be broken: directives, code in comments and long links may not.
func breaks(text string) bool {
	trimmed := strings.TrimLeft(text, " \t")
	if strings.HasPrefix(trimmed, "//\t") {
		return false
	}
	if strings.HasPrefix(trimmed, "//go:") || strings.HasPrefix(trimmed, "//nolint") || strings.HasPrefix(trimmed, "//line") {
		return false
	}
	words := strings.Fields(trimmed)
	return len(words) > 2
}
