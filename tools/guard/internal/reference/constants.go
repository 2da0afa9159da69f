package reference

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

// constant is a string constant at package level.
type constant struct {
	name  string
	value string
	doc   string // its own comment, not its group's
}

// constants returns the string constants of all packages of ours, by import path and name.
func constants(t *tree.Tree) map[string]map[string]constant {
	found := map[string]map[string]constant{}
	for _, p := range t.Packages {
		for _, f := range p.Files {
			if f.Test || f.Generated {
				continue
			}
			for _, decl := range f.Syntax.Decls {
				group, ok := decl.(*ast.GenDecl)
				if !ok || group.Tok != token.CONST {
					continue
				}
				for _, c := range groupConstants(group) {
					if found[p.Path] == nil {
						found[p.Path] = map[string]constant{}
					}
					found[p.Path][c.name] = c
				}
			}
		}
	}
	return found
}

func groupConstants(group *ast.GenDecl) []constant {
	var found []constant
	for _, spec := range group.Specs {
		values, ok := spec.(*ast.ValueSpec)
		if !ok || len(values.Names) != len(values.Values) {
			continue
		}
		doc := values.Doc.Text()
		if doc == "" && !group.Lparen.IsValid() {
			doc = group.Doc.Text()
		}
		if doc == "" {
			doc = values.Comment.Text()
		}
		for i, name := range values.Names {
			if value, ok := literal(values.Values[i]); ok {
				found = append(found, constant{name: name.Name, value: value, doc: strings.TrimSpace(doc)})
			}
		}
	}
	return found
}

// scope resolves string expressions of one file.
type scope struct {
	pkg       string
	imports   map[string]string // by the name the file uses
	constants map[string]map[string]constant
	lists     map[string]*ast.CompositeLit // variables that hold one, nil when they hold several in turn
}

func scopeOf(t *tree.Tree, p *tree.Package, f *tree.GoFile, all map[string]map[string]constant) scope {
	s := scope{pkg: p.Path, imports: map[string]string{}, constants: all, lists: lists(f.Syntax)}
	for _, i := range t.Imports(f) {
		s.imports[i.Name] = i.Path
	}
	return s
}

// lists returns the composite literals a file's variables are made of, such as labels two metrics
// share.
func lists(file *ast.File) map[string]*ast.CompositeLit {
	found := map[string]*ast.CompositeLit{}
	ast.Inspect(file, func(n ast.Node) bool {
		assign, ok := n.(*ast.AssignStmt)
		if !ok || len(assign.Lhs) != len(assign.Rhs) {
			return true
		}
		for i, left := range assign.Lhs {
			name, isIdent := left.(*ast.Ident)
			list, isLiteral := assign.Rhs[i].(*ast.CompositeLit)
			if !isIdent || !isLiteral {
				continue
			}
			if _, again := found[name.Name]; again {
				list = nil
			}
			found[name.Name] = list
		}
		return true
	})
	return found
}

// text returns the string an expression stands for, and the constant that holds it, if one does.
func (s scope) text(e ast.Expr) (value string, c constant, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		value, ok = literal(e)
		return value, constant{}, ok
	case *ast.Ident:
		c, ok = s.constants[s.pkg][e.Name]
		return c.value, c, ok
	case *ast.SelectorExpr:
		if pkg, isIdent := e.X.(*ast.Ident); isIdent {
			c, ok = s.constants[s.imports[pkg.Name]][e.Sel.Name]
		}
		return c.value, c, ok
	case *ast.ParenExpr:
		return s.text(e.X)
	case *ast.BinaryExpr:
		left, _, okLeft := s.text(e.X)
		right, _, okRight := s.text(e.Y)
		return left + right, constant{}, e.Op == token.ADD && okLeft && okRight
	}
	return "", constant{}, false
}

// called returns the import path and name of a called function; the path is the package's own when
// the name stands alone.
func (s scope) called(call *ast.CallExpr) (importPath, name string) {
	fun := call.Fun
	if generic, ok := fun.(*ast.IndexExpr); ok {
		fun = generic.X
	}
	switch fun := fun.(type) {
	case *ast.Ident:
		return s.pkg, fun.Name
	case *ast.SelectorExpr:
		if pkg, ok := fun.X.(*ast.Ident); ok {
			return s.imports[pkg.Name], fun.Sel.Name
		}
		return "", fun.Sel.Name
	}
	return "", ""
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	value, err := strconv.Unquote(lit.Value)
	return value, err == nil
}
