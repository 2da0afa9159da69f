package servicedef

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"konsul.dev/pkg/fault"
)

// problems collects what is wrong, in the order of the file.
type problems struct {
	found []*problem
}

type problem struct {
	path, message, hint string
}

func (p *problems) add(path, format string, args ...any) *problem {
	found := &problem{path: path, message: fmt.Sprintf(format, args...)}
	p.found = append(p.found, found)
	return found
}

func (p *problem) remedy(hint string) { p.hint = hint }

func (p *problems) err() error {
	errs := make([]error, len(p.found))
	for i, found := range p.found {
		errs[i] = fault.Invalid(found.path, "%s", found.message).WithRemedy(found.hint)
	}
	return errors.Join(errs...)
}

// value is a node of the document with its place. The zero value is an absent node: it has no
// items.
type value struct {
	path string
	// prefix stands in front of the paths of a document's root.
	prefix   string
	node     *yaml.Node
	problems *problems
}

// documents returns the root mappings of the documents in data. Empty ones, such as what stands
// behind a last `---`, do not count unless there is no other.
func (p *problems) documents(data []byte) []value {
	const help = "see the service definition format: a mapping with the one key `service`, or `services` with a list"
	if len(data) > MaxSize {
		p.add("", "the definition has %d bytes, more than %d", len(data), MaxSize).remedy("write the services into several files")
		return nil
	}
	var roots []value
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for number := 1; ; number++ {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.add("", "no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: ")).remedy(help)
			return nil
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Tag == "!!null" {
			continue
		}
		root := value{node: doc.Content[0], problems: p}
		if number > 1 {
			root.prefix = fmt.Sprintf("document %d: ", number)
		}
		if root.node.Kind != yaml.MappingNode {
			p.add("", "%sno mapping", root.prefix).remedy(help)
			return nil
		}
		roots = append(roots, root)
	}
	if len(roots) == 0 {
		p.add("", "the definition is empty").remedy(help)
	}
	return roots
}

func (v value) isMap() bool {
	if v.node.Kind == yaml.MappingNode {
		return true
	}
	v.wrong("a mapping of keys to values")
	return false
}

// fields returns the values of a mapping by key. Keys other than the known ones are problems.
func (v value) fields(known ...string) map[string]value {
	fields := map[string]value{}
	v.pairs(func(key string, field value) {
		if !slices.Contains(known, key) {
			v.problems.add(field.path, "unknown key (line %d)", field.node.Line).remedy("known keys here: " + strings.Join(known, ", "))
			return
		}
		// A key with nothing behind it is as good as absent.
		if field.node.Tag != "!!null" {
			fields[key] = field
		}
	})
	return fields
}

func (v value) pairs(visit func(key string, field value)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		if key.Kind != yaml.ScalarNode {
			v.problems.add(v.path, "line %d: a key must be a plain word", key.Line)
			continue
		}
		field := value{path: v.prefix + strings.TrimPrefix(v.path+"."+key.Value, "."), node: v.node.Content[i+1], problems: v.problems}
		if seen[key.Value] {
			v.problems.add(field.path, "written twice (line %d)", key.Line).remedy("keep one of them")
			continue
		}
		seen[key.Value] = true
		visit(key.Value, field)
	}
}

func (v value) items() []value {
	if v.node == nil {
		return nil
	}
	if v.node.Kind != yaml.SequenceNode {
		v.wrong("a list")
		return nil
	}
	items := make([]value, len(v.node.Content))
	for i, node := range v.node.Content {
		items[i] = value{path: v.path + "[" + strconv.Itoa(i) + "]", node: node, problems: v.problems}
	}
	return items
}

func (v value) meta() map[string]string {
	if v.node == nil || !v.isMap() {
		return nil
	}
	meta := map[string]string{}
	v.pairs(func(key string, field value) {
		if !text.MatchString(key) {
			v.problems.add(v.path, "%q is no key", key).remedy("use keys of 1 to 128 printable characters")
		}
		meta[key] = field.string()
	})
	return meta
}

// string returns the text of a scalar as it was written: 8080, true and v1 are all text.
func (v value) string() string {
	if v.node.Kind != yaml.ScalarNode {
		v.wrong("a single value")
		return ""
	}
	return v.node.Value
}

func (v value) matching(pattern *regexp.Regexp, remedy string) string {
	s := v.string()
	if v.node.Kind == yaml.ScalarNode && !pattern.MatchString(s) {
		v.problems.add(v.path, "%q is not allowed here", s).remedy(remedy)
	}
	return s
}

func (v value) number(least, most uint64) uint64 {
	s := v.string()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < least || n > most {
		v.problems.add(v.path, "%q is no number from %d to %d", s, least, most)
		return least
	}
	return n
}

func (v value) wrong(want string) {
	got := "something else"
	switch v.node.Kind {
	case yaml.ScalarNode:
		got = fmt.Sprintf("%q", v.node.Value)
	case yaml.MappingNode:
		got = "a mapping"
	case yaml.SequenceNode:
		got = "a list"
	case yaml.AliasNode:
		got = "an alias"
	}
	v.problems.add(v.path, "is %s, not %s (line %d)", got, want, v.node.Line)
}
