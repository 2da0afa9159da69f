// Package readme finds the commands README.md tells a newcomer to type, and checks that something
// runs them: a block with a name, written <!-- name --> on the line before, is run by a test in
// tests/e2e that asks for it by that name; a block without one holds only make targets that exist.
package readme

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

const file = "README.md"

// Block is one fenced sh block.
type Block struct {
	Name     string // empty when it has none
	Line     int    // of its first command
	Commands []string
}

// Blocks returns the blocks of a Markdown text.
func Blocks(text []byte) []Block {
	var blocks []Block
	named := regexp.MustCompile(`^<!-- ([\w-]+) -->$`)
	var open *Block
	var previous string
	for i, line := range strings.Split(string(text), "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case open == nil && trimmed == "```sh":
			open = &Block{Line: i + 2}
			if found := named.FindStringSubmatch(previous); found != nil {
				open.Name = found[1]
			}
		case open != nil && trimmed == "```":
			blocks = append(blocks, *open)
			open = nil
		case open != nil && trimmed != "":
			open.Commands = append(open.Commands, trimmed)
		}
		previous = trimmed
	}
	return blocks
}

// Check checks that every block is run.
func Check(t *tree.Tree) []tree.Finding {
	page, ok := t.File(file)
	if !ok {
		return nil
	}
	var findings []tree.Finding
	bad := func(line int, message, remedy string) {
		findings = append(findings, tree.Finding{File: file, Line: line, Rule: "readme", Message: message, Remedy: remedy})
	}
	for _, b := range Blocks(page.Text) {
		if b.Name != "" {
			if !asked(t, b.Name) {
				bad(b.Line, "no test in tests/e2e runs the block "+b.Name, "run it in TestTheREADMEIsTrue")
			}
			continue
		}
		for i, command := range b.Commands {
			target, ok := strings.CutPrefix(command, "make ")
			switch {
			case !ok:
				bad(b.Line+i, "nothing runs "+strconv.Quote(command), "name the block, <!-- name --> on the line before, and run it in tests/e2e")
			case !hasTarget(t, strings.Fields(target)):
				bad(b.Line+i, "the Makefile has no target for "+strconv.Quote(command), "name one that make help lists")
			}
		}
	}
	return findings
}

// asked reports whether a test in tests/e2e has the block's name as a string.
func asked(t *tree.Tree, name string) bool {
	return slices.ContainsFunc(t.Files, func(f *tree.File) bool {
		return tree.Under(f.Name, "tests/e2e") && strings.HasSuffix(f.Name, "_test.go") && strings.Contains(string(f.Text), strconv.Quote(name))
	})
}

func hasTarget(t *tree.Tree, words []string) bool {
	makefile, ok := t.File("Makefile")
	if !ok {
		return false
	}
	for _, word := range words {
		if !strings.Contains(word, "=") && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(word)+`:`).Match(makefile.Text) {
			return false
		}
	}
	return true
}

// Print prints the commands of the named blocks, or of all with their names in front.
func Print(t *tree.Tree, names []string, out io.Writer) error {
	page, ok := t.File(file)
	if !ok {
		return fmt.Errorf("there is no %s", file)
	}
	blocks := Blocks(page.Text)
	for _, name := range names {
		if !slices.ContainsFunc(blocks, func(b Block) bool { return b.Name == name }) {
			return fmt.Errorf("%s has no block %q", file, name)
		}
	}
	for _, b := range blocks {
		switch {
		case len(names) == 0:
			fmt.Fprintf(out, "# %s (line %d)\n%s\n", b.Name, b.Line, strings.Join(b.Commands, "\n"))
		case slices.Contains(names, b.Name):
			fmt.Fprintln(out, strings.Join(b.Commands, "\n"))
		}
	}
	return nil
}
