package reference

import (
	"bytes"
	"fmt"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

// Page is a page of docs with generated tables.
type Page struct {
	File    string
	section string
	rule    string
	head    []string
	tables  []table
}

type table struct {
	// title is the heading above the table; empty: there is none.
	title string
	rows  [][]string
}

// add adds a row to the last table.
func (p *Page) add(cells ...string) {
	if len(p.tables) == 0 {
		p.tables = []table{{}}
	}
	last := &p.tables[len(p.tables)-1]
	last.rows = append(last.rows, cells)
}

// Pages returns the pages as the code wants them.
func Pages(t *tree.Tree) []Page {
	faults, _ := reasons(t)
	counted, _ := metrics(t)
	pages := []Page{errorsPage(faults), metricsPage(counted)}
	if told, _ := settings(t); told != nil {
		pages = append(pages, settingsPage(told))
	}
	return pages
}

// Errors checks that reasons are constants in upper snake case, and docs/errors.md lists them all.
func Errors(t *tree.Tree) []tree.Finding {
	faults, findings := reasons(t)
	return append(findings, errorsPage(faults).check(t)...)
}

// Metrics checks that metrics are declared with constants, docs/metrics.md lists them all, and
// those it promises exist.
func Metrics(t *tree.Tree) []tree.Finding {
	counted, findings := metrics(t)
	page := metricsPage(counted)
	if file, ok := t.File(page.File); ok {
		findings = append(findings, published(file, counted)...)
	}
	return append(findings, page.check(t)...)
}

func errorsPage(faults []*reason) Page {
	p := Page{File: "docs/errors.md", section: "reasons", rule: "errors", head: []string{"reason", "code", "means", "do", "from"}}
	for _, r := range faults {
		meaning := r.meaning
		if meaning == "" {
			meaning = r.message
		}
		p.add("`"+r.name+"`", strings.Join(r.codes, ", "), meaning, r.remedy, links(r.from))
	}
	return p
}

func metricsPage(counted []metric) Page {
	p := Page{File: "docs/metrics.md", section: "metrics", rule: "metrics", head: []string{"metric", "kind", "labels", "means", "from"}}
	for _, m := range counted {
		kind := m.kind
		if kind == "" {
			kind = "at scrape"
		}
		p.add("`"+m.name+"`", kind, strings.Join(m.labels, ", "), m.help, links([]string{m.from}))
	}
	return p
}

// links names the folders that declare a thing: the service, or the package of pkg.
func links(dirs []string) string {
	var names []string
	seen := map[string]bool{}
	for _, dir := range dirs {
		parts := strings.Split(dir, "/")
		dir = strings.Join(parts[:min(2, len(parts))], "/")
		if !seen[dir] {
			seen[dir] = true
			names = append(names, fmt.Sprintf("[%s](../%s)", dir, dir))
		}
	}
	return strings.Join(names, ", ")
}

func (p Page) marks() (begin, end []byte) {
	return []byte("<!-- begin " + p.section + ": guard fix-docs writes this -->\n"), []byte("<!-- end " + p.section + " -->\n")
}

// Render returns the page's text with its table as the code wants it.
func (p Page) Render(t *tree.Tree) ([]byte, error) {
	file, ok := t.File(p.File)
	if !ok {
		return nil, fmt.Errorf("%s is missing", p.File)
	}
	before, _, after, ok := p.split(file.Text)
	if !ok {
		begin, end := p.marks()
		return nil, fmt.Errorf("%s lacks the marks of its table, %q and %q", p.File, begin, end)
	}
	begin, end := p.marks()
	return bytes.Join([][]byte{before, begin, p.generated(), end, after}, nil), nil
}

func (p Page) split(text []byte) (before, table, after []byte, ok bool) {
	begin, end := p.marks()
	before, rest, okBegin := bytes.Cut(text, begin)
	table, after, okEnd := bytes.Cut(rest, end)
	return before, table, after, okBegin && okEnd
}

func (p Page) generated() []byte {
	var b bytes.Buffer
	line := func(cells []string) {
		for _, cell := range cells {
			cell = strings.ReplaceAll(strings.Join(strings.Fields(cell), " "), "|", `\|`)
			b.WriteString("| " + cell)
			if cell != "" {
				b.WriteString(" ")
			}
		}
		b.WriteString("|\n")
	}
	b.WriteString("\n")
	tables := p.tables
	if len(tables) == 0 {
		tables = []table{{}}
	}
	for _, t := range tables {
		if t.title != "" {
			b.WriteString("### " + t.title + "\n\n")
		}
		line(p.head)
		b.WriteString(strings.Repeat("|---", len(p.head)) + "|\n")
		for _, row := range t.rows {
			line(row)
		}
		b.WriteString("\n")
	}
	return b.Bytes()
}

// check compares the page's table with the code, row by row.
func (p Page) check(t *tree.Tree) []tree.Finding {
	bad := func(line int, message string) tree.Finding {
		return tree.Finding{File: p.File, Line: line, Rule: p.rule, Message: message, Remedy: "run make fix-docs"}
	}
	file, ok := t.File(p.File)
	if !ok {
		return []tree.Finding{bad(0, "the page is missing")}
	}
	before, table, _, ok := p.split(file.Text)
	if !ok {
		begin, end := p.marks()
		finding := bad(0, "the marks of the generated table are missing")
		finding.Remedy = fmt.Sprintf("write the lines %s and %s where it belongs", bytes.TrimSpace(begin), bytes.TrimSpace(end))
		return []tree.Finding{finding}
	}
	want, first := string(p.generated()), bytes.Count(before, []byte("\n"))+2
	have, named := map[string]bool{}, map[string]bool{}
	var findings []tree.Finding
	for i, line := range strings.Split(string(table), "\n") {
		have[line], named[subject(line)] = true, true
		if strings.HasPrefix(line, "| `") && !strings.Contains(want, line+"\n") {
			findings = append(findings, bad(first+i, "the row of "+subject(line)+" is not what the code says"))
		}
	}
	for line := range strings.SplitSeq(want, "\n") {
		if !have[line] && !named[subject(line)] {
			findings = append(findings, bad(0, "no row says what the code does about "+subject(line)))
		}
	}
	return findings
}

func subject(row string) string {
	cell, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " |")
	return strings.Trim(cell, "`")
}
