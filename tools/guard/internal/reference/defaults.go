package reference

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"
	"time"

	"konsul.dev/tools/guard/internal/tree"
)

// declared is a piece of syntax and where it stands.
type declared[N any] struct {
	node  N
	scope scope
	file  string
}

// declarations are the types, constants and functions of our packages, by import path and name.
type declarations struct {
	types  map[string]map[string]declared[*ast.StructType]
	consts map[string]map[string]declared[ast.Expr]
	funcs  map[string]map[string]declared[*ast.FuncDecl]
}

// unknown is the value of what is not written down in the code, such as the host's name.
type unknown struct{}

func newDeclarations(t *tree.Tree) *declarations {
	d := &declarations{
		types:  map[string]map[string]declared[*ast.StructType]{},
		consts: map[string]map[string]declared[ast.Expr]{},
		funcs:  map[string]map[string]declared[*ast.FuncDecl]{},
	}
	for _, p := range t.Packages {
		d.types[p.Path] = map[string]declared[*ast.StructType]{}
		d.consts[p.Path] = map[string]declared[ast.Expr]{}
		d.funcs[p.Path] = map[string]declared[*ast.FuncDecl]{}
		for _, f := range p.Files {
			if !f.Test && !f.Generated {
				d.read(p.Path, f, scopeOf(t, p, f, nil))
			}
		}
	}
	return d
}

func (d *declarations) read(pkg string, f *tree.GoFile, s scope) {
	for _, decl := range f.Syntax.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil && decl.Body != nil {
				d.funcs[pkg][decl.Name.Name] = declared[*ast.FuncDecl]{decl, s, f.Name}
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if structure, ok := spec.Type.(*ast.StructType); ok {
						d.types[pkg][spec.Name.Name] = declared[*ast.StructType]{structure, s, f.Name}
					}
				case *ast.ValueSpec:
					for i, name := range spec.Names {
						if decl.Tok == token.CONST && i < len(spec.Values) {
							d.consts[pkg][name.Name] = declared[ast.Expr]{spec.Values[i], s, f.Name}
						}
					}
				}
			}
		}
	}
}

// structOf returns the struct of ours that a type is.
func (d *declarations) structOf(s scope, e ast.Expr) (declared[*ast.StructType], bool) {
	switch e := e.(type) {
	case *ast.Ident:
		found, ok := d.types[s.pkg][e.Name]
		return found, ok
	case *ast.SelectorExpr:
		if pkg, ok := e.X.(*ast.Ident); ok {
			found, ok := d.types[s.imports[pkg.Name]][e.Sel.Name]
			return found, ok
		}
	}
	return declared[*ast.StructType]{}, false
}

// call returns what a function of defaults returns, whatever it is given: an int64, bool or string,
// []any for a list, map[string]any for a struct, or unknown. It follows assignments and the last
// return, which is what such functions are made of.
func (d *declarations) call(pkg, name string) any {
	results := d.results(pkg, name)
	if len(results) != 1 {
		return unknown{}
	}
	return results[0]
}

func (d *declarations) results(pkg, name string) []any {
	f, ok := d.funcs[pkg][name]
	if !ok {
		return nil
	}
	locals := map[string]any{}
	e := evaluation{d, f.scope, locals}
	for _, statement := range f.node.Body.List {
		switch statement := statement.(type) {
		case *ast.AssignStmt:
			values := e.list(statement.Rhs)
			for i, left := range statement.Lhs {
				target, isIdent := left.(*ast.Ident)
				if isIdent && i < len(values) {
					locals[target.Name] = values[i]
				}
			}
		case *ast.ReturnStmt:
			return e.list(statement.Results)
		}
	}
	return nil
}

type evaluation struct {
	*declarations
	scope  scope
	locals map[string]any
}

// list evaluates expressions, of which one may be a call with several results.
func (e evaluation) list(expressions []ast.Expr) []any {
	if len(expressions) == 1 {
		if call, ok := expressions[0].(*ast.CallExpr); ok {
			if results := e.results(e.scope.called(call)); len(results) > 1 {
				return results
			}
		}
	}
	var values []any
	for _, expression := range expressions {
		values = append(values, e.value(expression))
	}
	return values
}

func (e evaluation) value(expression ast.Expr) any {
	switch x := expression.(type) {
	case *ast.BasicLit:
		return basic(x)
	case *ast.ParenExpr:
		return e.value(x.X)
	case *ast.Ident:
		return e.ident(x)
	case *ast.SelectorExpr:
		return e.selector(x)
	case *ast.CompositeLit:
		return e.composite(x)
	case *ast.BinaryExpr:
		return binary(x.Op, e.value(x.X), e.value(x.Y))
	case *ast.CallExpr:
		if fun, ok := x.Fun.(*ast.Ident); ok && len(x.Args) == 1 && (strings.HasPrefix(fun.Name, "int") || strings.HasPrefix(fun.Name, "uint")) {
			return e.value(x.Args[0]) // a conversion
		}
		return e.call(e.scope.called(x))
	}
	return unknown{}
}

func (e evaluation) ident(x *ast.Ident) any {
	if value, ok := e.locals[x.Name]; ok {
		return value
	}
	switch x.Name {
	case "true", "false":
		return x.Name == "true"
	case "nil":
		return nil
	}
	return e.constant(e.scope.pkg, x.Name)
}

func (e evaluation) constant(pkg, name string) any {
	c, ok := e.consts[pkg][name]
	if !ok {
		return unknown{}
	}
	return evaluation{e.declarations, c.scope, nil}.value(c.node)
}

func (e evaluation) selector(x *ast.SelectorExpr) any {
	if pkg, ok := x.X.(*ast.Ident); ok {
		if _, isLocal := e.locals[pkg.Name]; !isLocal {
			importPath := e.scope.imports[pkg.Name]
			if importPath == "time" {
				return unitOfTime(x.Sel.Name)
			}
			return e.constant(importPath, x.Sel.Name)
		}
	}
	if fields, ok := e.value(x.X).(map[string]any); ok {
		return fields[x.Sel.Name]
	}
	return unknown{}
}

func (e evaluation) composite(x *ast.CompositeLit) any {
	if _, isList := x.Type.(*ast.ArrayType); isList {
		items := []any{}
		for _, element := range x.Elts {
			items = append(items, e.value(element))
		}
		return items
	}
	fields := map[string]any{}
	for _, element := range x.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			return unknown{}
		}
		if key, ok := pair.Key.(*ast.Ident); ok {
			fields[key.Name] = e.value(pair.Value)
		}
	}
	return fields
}

func basic(x *ast.BasicLit) any {
	switch x.Kind {
	case token.INT:
		if n, err := strconv.ParseInt(x.Value, 0, 64); err == nil {
			return n
		}
	case token.STRING:
		if s, err := strconv.Unquote(x.Value); err == nil {
			return s
		}
	}
	return unknown{}
}

func binary(op token.Token, left, right any) any {
	if a, ok := left.(string); ok {
		if b, ok := right.(string); ok && op == token.ADD {
			return a + b
		}
		return unknown{}
	}
	a, okA := left.(int64)
	b, okB := right.(int64)
	if !okA || !okB {
		return unknown{}
	}
	switch op {
	case token.ADD:
		return a + b
	case token.SUB:
		return a - b
	case token.MUL:
		return a * b
	case token.SHL:
		return a << b
	case token.QUO:
		if b != 0 {
			return a / b
		}
	}
	return unknown{}
}

func unitOfTime(name string) any {
	switch name {
	case "Nanosecond":
		return int64(time.Nanosecond)
	case "Microsecond":
		return int64(time.Microsecond)
	case "Millisecond":
		return int64(time.Millisecond)
	case "Second":
		return int64(time.Second)
	case "Minute":
		return int64(time.Minute)
	case "Hour":
		return int64(time.Hour)
	}
	return unknown{}
}

// shortDuration writes "5m" where the standard library writes "5m0s".
func shortDuration(nanoseconds int64) string {
	text := time.Duration(nanoseconds).String()
	if text == "0s" {
		return "0"
	}
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
