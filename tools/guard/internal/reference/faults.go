package reference

import (
	"go/ast"
	"maps"
	"regexp"
	"slices"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

const faultPath = tree.Prefix + "pkg/fault"

// reason is one stable name of a fault, gathered from everywhere it is used.
type reason struct {
	name    string
	codes   []string
	meaning string // the constant's comment, else what the first message says
	message string
	remedy  string
	from    []string // folders
}

// reasons gathers every reason of the code, and what is wrong with how some are written.
func reasons(t *tree.Tree) ([]*reason, []tree.Finding) {
	g := gatherer{t: t, all: constants(t), found: map[string]*reason{}}
	for _, p := range t.Packages {
		if p.TestOnly() {
			continue
		}
		for _, c := range g.all[p.Path] {
			if strings.HasPrefix(c.name, "Reason") && upperSnake(c.value) {
				g.add(c.value, p.Dir, c)
			}
		}
		for _, f := range p.Files {
			if !f.Test && !f.Generated {
				g.file(p, f)
			}
		}
	}
	names := slices.Sorted(maps.Keys(g.found))
	sorted := make([]*reason, 0, len(names))
	for _, name := range names {
		r := g.found[name]
		if r.meaning == "" && r.message == "" {
			g.findings = append(g.findings, tree.Finding{
				File: r.from[0], Rule: "errors", Message: "nothing says what the reason " + name + " means", Remedy: "write it in a comment of the constant's own",
			})
		}
		sorted = append(sorted, r)
	}
	return sorted, g.findings
}

type gatherer struct {
	t        *tree.Tree
	all      map[string]map[string]constant
	found    map[string]*reason
	findings []tree.Finding
}

func (g *gatherer) add(name, dir string, c constant) *reason {
	r := g.found[name]
	if r == nil {
		r = &reason{name: name}
		g.found[name] = r
	}
	if !slices.Contains(r.from, dir) {
		r.from = append(r.from, dir)
		slices.Sort(r.from)
	}
	if meaning := sentence(c); r.meaning == "" || meaning != "" && meaning < r.meaning {
		r.meaning = meaning // two constants of one value: take one, whatever order maps have
	}
	return r
}

func (g *gatherer) file(p *tree.Package, f *tree.GoFile) {
	s := scopeOf(g.t, p, f, g.all)
	remedies := chained(f.Syntax)
	ast.Inspect(f.Syntax, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		importPath, name := s.called(call)
		if importPath != faultPath || name != "New" || len(call.Args) < 3 {
			return true
		}
		value, c, ok := s.text(call.Args[1])
		switch {
		case ok && value == "":
			return true // passed through, as Canceled is
		case !ok && (carried(call.Args[1]) || p.Dir == "pkg/rpc" || p.Dir == "pkg/fault"):
			return true
		case !ok:
			g.bad(f, call, "the reason of a fault is not a constant", "pass a constant Reason… declared beside the code that returns it")
			return true
		case !upperSnake(value):
			g.bad(f, call, "the reason "+value+" is not in upper snake case", "reasons are stable names for programs, such as NO_LEADER")
			return true
		}
		r := g.add(value, p.Dir, c)
		if code := codeName(call.Args[0]); code != "" && !slices.Contains(r.codes, code) {
			r.codes = append(r.codes, code)
			slices.Sort(r.codes)
		}
		if message, _, ok := s.text(call.Args[2]); ok && r.message == "" {
			r.message = template(message)
		}
		if remedy, _, ok := s.text(remedies[call]); ok && r.remedy == "" {
			r.remedy = template(remedy)
		}
		return true
	})
}

func (g *gatherer) bad(f *tree.GoFile, n ast.Node, message, remedy string) {
	g.findings = append(g.findings, tree.Finding{File: f.Name, Line: g.t.Line(n), Rule: "errors", Message: message, Remedy: remedy})
}

// chained returns, for each call at the head of a chain such as
// fault.New(…).WithField(…).WithRemedy("…"), what the chain gives to WithRemedy.
func chained(file *ast.File) map[*ast.CallExpr]ast.Expr {
	remedies := map[*ast.CallExpr]ast.Expr{}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || selector.Sel.Name != "WithRemedy" || len(call.Args) == 0 {
			return true
		}
		for head := call; ; {
			selector, ok := head.Fun.(*ast.SelectorExpr)
			if !ok {
				break
			}
			inner, ok := selector.X.(*ast.CallExpr)
			if !ok {
				break
			}
			head = inner
			remedies[head] = call.Args[0]
		}
		return true
	})
	return remedies
}

// carried reports whether an expression takes a reason from somewhere: a message, or another fault.
func carried(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	return ok && strings.Contains(selector.Sel.Name, "Reason")
}

func codeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.Ident:
		if ast.IsExported(e.Name) {
			return e.Name
		}
	}
	return ""
}

func upperSnake(s string) bool {
	return regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`).MatchString(s)
}

// template shows a format to people: every verb is an ellipsis.
func template(format string) string {
	return regexp.MustCompile(`%[-+# 0]*[\d.*]*(\[\d+\])?[a-zA-Z]`).ReplaceAllString(format, "…")
}

// sentence returns the first sentence of a constant's comment without the name at its head.
func sentence(c constant) string {
	text, _, _ := strings.Cut(strings.Join(strings.Fields(c.doc), " "), ". ")
	text = strings.TrimSuffix(text, ".")
	for _, head := range []string{c.name, "means", "says", "is the reason of", "is the reason", "is given", "is", "that"} {
		if rest, ok := strings.CutPrefix(text, head+" "); ok {
			text = rest
		}
	}
	return text
}
