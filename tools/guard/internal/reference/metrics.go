package reference

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

const prometheusPath = "github.com/prometheus/client_golang/prometheus"

// metric is one metric's declaration.
type metric struct {
	name   string
	kind   string // counter, gauge, histogram, summary; empty for one computed when scraped
	labels []string
	help   string
	from   string // folder
}

// metrics gathers every metric the code declares, and what is wrong with how some are written.
func metrics(t *tree.Tree) ([]metric, []tree.Finding) {
	var found []metric
	var findings []tree.Finding
	all := constants(t)
	for _, p := range t.Packages {
		if p.TestOnly() {
			continue
		}
		for _, f := range p.Files {
			if f.Test || f.Generated {
				continue
			}
			s := scopeOf(t, p, f, all)
			ast.Inspect(f.Syntax, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				m, ok, declares := s.metric(call)
				switch {
				case !declares:
				case !ok:
					findings = append(findings, tree.Finding{
						File: f.Name, Line: t.Line(call), Rule: "metrics", Message: "a metric's name, help and labels are not constants",
						Remedy: "write them where the metric is made: published names are found by searching for them",
					})
				case !strings.HasPrefix(m.name, "konsul_"):
					findings = append(findings, tree.Finding{
						File: f.Name, Line: t.Line(call), Rule: "metrics", Message: "metric " + m.name + " is not ours by name",
						Remedy: "name it konsul_<area>_<thing>_<unit>",
					})
				default:
					m.from = p.Dir
					found = append(found, m)
				}
				return true
			})
		}
	}
	slices.SortFunc(found, func(a, b metric) int { return strings.Compare(a.name+" "+a.from, b.name+" "+b.from) })
	return found, findings
}

// metric reads a call of one of Prometheus' constructors. declares is false when the call is none;
// ok is false when it is one that cannot be read.
func (s scope) metric(call *ast.CallExpr) (m metric, ok, declares bool) {
	importPath, name := s.called(call)
	if importPath != prometheusPath {
		return metric{}, false, false
	}
	if name == "NewDesc" && len(call.Args) == 4 {
		var okName, okHelp, okLabels bool
		m.name, _, okName = s.text(call.Args[0])
		m.help, _, okHelp = s.text(call.Args[1])
		m.labels, okLabels = s.list(call.Args[2])
		return m, okName && okHelp && okLabels, true
	}
	found := regexp.MustCompile(`^New(Counter|Gauge|Histogram|Summary)(Vec|Func)?$`).FindStringSubmatch(name)
	if found == nil || len(call.Args) == 0 {
		return metric{}, false, false
	}
	options, isLiteral := call.Args[0].(*ast.CompositeLit)
	if !isLiteral {
		return metric{}, false, true
	}
	m.kind, ok = strings.ToLower(found[1]), true
	var parts [3]string
	for _, element := range options.Elts {
		pair, isPair := element.(*ast.KeyValueExpr)
		if !isPair {
			return metric{}, false, true
		}
		var target *string
		switch key, _ := pair.Key.(*ast.Ident); key.Name {
		case "Namespace":
			target = &parts[0]
		case "Subsystem":
			target = &parts[1]
		case "Name":
			target = &parts[2]
		case "Help":
			target = &m.help
		default:
			continue
		}
		var okText bool
		*target, _, okText = s.text(pair.Value)
		ok = ok && okText
	}
	m.name = strings.Join(slices.DeleteFunc(parts[:], func(part string) bool { return part == "" }), "_")
	if found[2] == "Vec" && len(call.Args) > 1 {
		var okLabels bool
		m.labels, okLabels = s.list(call.Args[1])
		ok = ok && okLabels
	}
	return m, ok, true
}

// list reads a []string of constants, or nil.
func (s scope) list(e ast.Expr) ([]string, bool) {
	literal, isLiteral := e.(*ast.CompositeLit)
	if name, isIdent := e.(*ast.Ident); isIdent {
		if name.Name == "nil" {
			return nil, true
		}
		literal, isLiteral = s.lists[name.Name], s.lists[name.Name] != nil
	}
	if !isLiteral {
		return nil, false
	}
	var list []string
	for _, element := range literal.Elts {
		value, _, ok := s.text(element)
		if !ok {
			return nil, false
		}
		list = append(list, value)
	}
	return list, true
}

// published checks that each metric a page promises in a line of its own, such as
// konsul_mesh_gateway_connections{datacenter}, exists with those labels.
func published(page *tree.File, found []metric) []tree.Finding {
	var findings []tree.Finding
	promise := regexp.MustCompile(`^(konsul_\w+)(?:\{([\w, ]*)\})?$`)
	for i, line := range strings.Split(string(page.Text), "\n") {
		promised := promise.FindStringSubmatch(strings.TrimSpace(line))
		if promised == nil {
			continue
		}
		bad := func(message, remedy string) {
			findings = append(findings, tree.Finding{File: page.Name, Line: i + 1, Rule: "metrics", Message: message, Remedy: remedy})
		}
		at := slices.IndexFunc(found, func(m metric) bool { return m.name == promised[1] })
		if at < 0 {
			bad("published metric "+promised[1]+" is not in the code", "published names stay exact: declare it where it is counted")
			continue
		}
		want := strings.FieldsFunc(promised[2], func(r rune) bool { return r == ',' || r == ' ' })
		if len(want) > 0 && !slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(found[at].labels))) {
			bad(fmt.Sprintf("published metric %s has the labels %v in the code", promised[1], found[at].labels), "published labels stay exact")
		}
	}
	return findings
}
