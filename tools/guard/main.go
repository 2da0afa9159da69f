// Guard checks what HOUSE_STYLE asks and no linter knows: who imports whom, package docs, names,
// TODOs, what must not be written down, and that docs/errors.md, docs/metrics.md and
// docs/configuration.md are true.
//
//	guard [-C root] check [rule ...]   all rules, or those named; exits 1 when one is broken
//	guard [-C root] fix-docs           rewrite the generated tables of docs/errors.md, docs/metrics.md and docs/configuration.md
//	guard [-C root] readme [name]      print the named command block of README.md, or all
//	guard rules                        list the rules
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"konsul.dev/tools/guard/internal/readme"
	"konsul.dev/tools/guard/internal/reference"
	"konsul.dev/tools/guard/internal/tree"
)

var errBroken = errors.New("rules are broken")

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("guard", flag.ContinueOnError)
	dir := flags.String("C", ".", "the repository's root `folder`")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	root, err := filepath.Abs(*dir)
	if err != nil {
		return fmt.Errorf("find the root: %w", err)
	}
	command, names := "check", flags.Args()
	if len(names) > 0 {
		command, names = names[0], names[1:]
	}
	if command == "rules" {
		for _, r := range rules(root) {
			fmt.Fprintf(out, "%-14s %s\n", r.name, r.about)
		}
		return nil
	}
	checkout, err := read(ctx, root)
	if err != nil {
		return err
	}
	switch command {
	case "check":
		return check(checkout, rules(root), names, out)
	case "fix-docs":
		return fixDocs(checkout, root)
	case "readme":
		return readme.Print(checkout, names, out)
	default:
		return fmt.Errorf("unknown command %q: check, fix-docs, readme or rules", command)
	}
}

// read reads what git has or would add: what is ignored is nobody's business.
func read(ctx context.Context, root string) (*tree.Tree, error) {
	list := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Stderr = os.Stderr
	files, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w", root, err)
	}
	names := slices.DeleteFunc(strings.Split(string(files), "\x00"), func(name string) bool { return name == "" })
	return tree.Read(os.DirFS(root), names)
}

func check(checkout *tree.Tree, all []rule, names []string, out io.Writer) error {
	for _, name := range names {
		if !slices.ContainsFunc(all, func(r rule) bool { return r.name == name }) {
			return fmt.Errorf("unknown rule %q; guard rules lists them", name)
		}
	}
	findings := checkout.Broken
	for _, r := range all {
		if len(names) == 0 || slices.Contains(names, r.name) {
			findings = append(findings, r.check(checkout)...)
		}
	}
	tree.Sort(findings)
	for _, f := range findings {
		fmt.Fprintln(out, f)
	}
	if len(findings) > 0 {
		return fmt.Errorf("%w: %d findings", errBroken, len(findings))
	}
	return nil
}

func fixDocs(checkout *tree.Tree, root string) error {
	for _, page := range reference.Pages(checkout) {
		text, err := page.Render(checkout)
		if err != nil {
			return err
		}
		name := filepath.Join(root, filepath.FromSlash(page.File))
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", page.File, err)
		}
	}
	return nil
}
