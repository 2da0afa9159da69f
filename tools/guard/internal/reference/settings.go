package reference

import (
	"fmt"
	"go/ast"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"konsul.dev/tools/guard/internal/tree"
)

// settingsRoot is the package whose type Config holds every section, and whose DefaultConfig has
// every default.
const settingsRoot = tree.Prefix + "tools/konsul-dc"

// setting is one key of konsul.yaml.
type setting struct {
	key   string // such as registry.raft.election_timeout; servers[] is each element of a list
	kind  string
	value string // the default; empty: none, or what the comment says
	help  string
}

// settings gathers every key of every section, in the order of the code, and what is wrong with how
// some are written.
func settings(t *tree.Tree) ([]setting, []tree.Finding) {
	d := newDeclarations(t)
	root, ok := d.types[settingsRoot]["Config"]
	if !ok {
		return nil, nil
	}
	w := settingsWalk{tree: t, declarations: d}
	w.structure(root, "", d.call(settingsRoot, "DefaultConfig"))
	return w.found, w.findings
}

type settingsWalk struct {
	tree *tree.Tree
	*declarations
	found    []setting
	findings []tree.Finding
}

// structure notes the fields of a struct, whose defaults are in value.
func (w *settingsWalk) structure(s declared[*ast.StructType], prefix string, value any) {
	defaults, _ := value.(map[string]any)
	words := w.keysByName(s)
	group := ""
	for _, field := range s.node.Fields.List {
		key, squash := koanfKey(field)
		if squash {
			name := embeddedName(field.Type)
			if in, ok := w.structOf(s.scope, field.Type); ok {
				w.structure(in, prefix, defaults[name])
			}
			continue
		}
		if key == "" || len(field.Names) != 1 {
			continue
		}
		name := field.Names[0].Name
		// A comment may be about the next field too: "RetryMin and RetryMax bound ...".
		if doc := field.Doc.Text(); doc != "" {
			group = doc
		} else if !strings.Contains(group, name) {
			group = ""
		}
		w.field(s, field, prefix+key, strings.TrimSpace(named(group, words)), defaults[name])
	}
}

func (w *settingsWalk) field(s declared[*ast.StructType], field *ast.Field, key, help string, value any) {
	if in, ok := w.structOf(s.scope, field.Type); ok {
		w.structure(in, key+".", value)
		return
	}
	kind, in, isList := w.kind(s.scope, field.Type)
	entry := setting{key: key, kind: kind, help: help}
	text, known := shown(value, kind)
	entry.value = text
	bad := func(message, remedy string) {
		w.findings = append(w.findings, tree.Finding{
			File: s.file, Line: w.tree.Line(field), Rule: "settings", Message: message, Remedy: remedy,
		})
	}
	if help == "" {
		bad("setting "+key+" has no comment", "say what it does, and its unit")
	}
	if !known && !strings.Contains(help, "default") {
		bad("the default of "+key+" is not written where guard can read it", "write it as a literal, or say what it is in the comment")
	}
	w.found = append(w.found, entry)
	if isList {
		w.structure(in, key+"[].", nil)
	}
}

// kind names the type of a setting; for a list of structs it answers these too.
func (w *settingsWalk) kind(s scope, e ast.Expr) (kind string, in declared[*ast.StructType], isList bool) {
	switch e := e.(type) {
	case *ast.ArrayType:
		if in, ok := w.structOf(s, e.Elt); ok {
			return "list", in, true
		}
		kind, _, _ = w.kind(s, e.Elt)
		return "list of " + kind, in, false
	case *ast.SelectorExpr:
		if e.Sel.Name == "Duration" {
			return "duration", in, false
		}
		return e.Sel.Name, in, false
	case *ast.Ident:
		if strings.HasPrefix(e.Name, "int") || strings.HasPrefix(e.Name, "uint") {
			return "int", in, false
		}
		return e.Name, in, false
	}
	return "", in, false
}

func koanfKey(field *ast.Field) (key string, squash bool) {
	if field.Tag == nil {
		return "", false
	}
	text, err := strconv.Unquote(field.Tag.Value)
	if err != nil {
		return "", false
	}
	key, options, _ := strings.Cut(reflect.StructTag(text).Get("koanf"), ",")
	return key, options == "squash"
}

func embeddedName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// keysByName returns the keys of a struct's fields; those of its sections, such as Raft, may be
// words of their own.
func (w *settingsWalk) keysByName(s declared[*ast.StructType]) map[string]string {
	words := map[string]string{}
	for _, field := range s.node.Fields.List {
		_, isSection := w.structOf(s.scope, field.Type)
		if key, _ := koanfKey(field); key != "" && !isSection && len(field.Names) == 1 {
			words[field.Names[0].Name] = key
		}
	}
	return words
}

var word = regexp.MustCompile(`[A-Z]\w+`)

// named writes a comment's names of fields as the keys that operators know.
func named(doc string, words map[string]string) string {
	return word.ReplaceAllStringFunc(doc, func(name string) string {
		if key, ok := words[name]; ok {
			return "`" + key + "`"
		}
		return name
	})
}

// shown returns a default as konsul.yaml has it; known is false when it could not be read.
func shown(value any, kind string) (text string, known bool) {
	switch v := value.(type) {
	case nil:
		switch kind {
		case "int", "duration":
			return "`0`", true
		case "bool":
			return "`false`", true
		}
		return "", true
	case int64:
		if kind == "duration" {
			return "`" + shortDuration(v) + "`", true
		}
		return fmt.Sprintf("`%d`", v), true
	case bool:
		return fmt.Sprintf("`%t`", v), true
	case string:
		if v == "" {
			return "", true
		}
		return "`" + v + "`", true
	case []any:
		var items []string
		for _, item := range v {
			text, ok := shown(item, strings.TrimPrefix(kind, "list of "))
			if !ok {
				return "", false
			}
			items = append(items, strings.Trim(text, "`"))
		}
		return "`[" + strings.Join(items, ", ") + "]`", true
	}
	return "", false
}

// Settings checks that every setting has a comment and a default, and docs/configuration.md lists them all.
func Settings(t *tree.Tree) []tree.Finding {
	found, findings := settings(t)
	if found == nil {
		return nil
	}
	return append(findings, settingsPage(found).check(t)...)
}

func settingsPage(found []setting) Page {
	p := Page{File: "docs/configuration.md", section: "settings", rule: "settings", head: []string{"key", "type", "default", "means"}}
	last := ""
	for _, s := range found {
		section, _, _ := strings.Cut(s.key, ".")
		if section != last {
			p.tables = append(p.tables, table{title: "`" + section + "`"})
			last = section
		}
		p.add("`"+s.key+"`", s.kind, s.value, s.help)
	}
	return p
}
