package reference

import (
	"fmt"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

// Glossary checks that docs/glossary.md defines each word once, in alphabetical order.
func Glossary(t *tree.Tree) []tree.Finding {
	const name = "docs/glossary.md"
	page, ok := t.File(name)
	if !ok {
		return nil
	}
	var findings []tree.Finding
	previous, inTable := "", false
	for i, line := range strings.Split(string(page.Text), "\n") {
		if strings.HasPrefix(line, "|---") {
			inTable = true
			continue
		}
		if !inTable || !strings.HasPrefix(line, "| ") {
			continue
		}
		word := subject(line)
		bad := func(message, remedy string) {
			findings = append(findings, tree.Finding{File: name, Line: i + 1, Rule: "glossary", Message: message, Remedy: remedy})
		}
		switch strings.Compare(word, previous) {
		case 0:
			bad(word+" is defined twice", "make it one meaning, or find another word for the other")
		case -1:
			bad(fmt.Sprintf("%s stands after %s", word, previous), "keep the table in alphabetical order")
		}
		previous = word
	}
	return findings
}
