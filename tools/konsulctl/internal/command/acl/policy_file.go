package acl

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
)

// policyExample is what a policy looks like, for those who wrote something else.
const policyExample = "write YAML or JSON such as `rules: [{resource: kv, prefix: config/, access: read}]`; see `konsulctl acl policy --help`"

// policyFile is a policy as people write it.
type policyFile struct {
	name string
	// description is nil when the file has none.
	description *string
	rules       []*registryv1.ACLRule
}

// foreign recognises the rules of Consul, in HCL or in JSON.
var foreign = regexp.MustCompile(`(?m)^[\s{]*"?(acl|agent|event|identity|key|keyring|mesh|node|operator|peering|query|service|session)(_prefix)?"?(\s+"[^"\n]*")?\s*([={]|:\s*[{"])`)

// parsePolicyFile reads a policy. Its faults name the place in the file.
func parsePolicyFile(text []byte) (policyFile, error) {
	var file policyFile
	root, err := oneDocument(text)
	if err == nil && (root == nil || root.Kind == yaml.MappingNode && !foreign.Match(text)) {
		return file, file.read(root)
	}
	if foreign.Match(text) {
		return file, fault.Invalid("--file", "is written as Consul's policies are, which are not read").WithRemedy(policyExample)
	}
	if err == nil {
		err = errors.New("it holds no `rules:`")
	}
	return file, fault.Invalid("--file", "is no policy: %s", strings.TrimPrefix(err.Error(), "yaml: ")).WithRemedy(policyExample)
}

// oneDocument returns what is in the only document of a text, nil when it is empty.
func oneDocument(text []byte) (*yaml.Node, error) {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it holds more than one document")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

func (f *policyFile) read(root *yaml.Node) error {
	if root == nil {
		return nil
	}
	fields, err := mapping("", root, "name", "description", "rules")
	if err != nil {
		return err
	}
	if node := fields["name"]; node != nil {
		if f.name, err = scalar("name", node); err != nil {
			return err
		}
	}
	if node := fields["description"]; node != nil {
		description, err := scalar("description", node)
		if err != nil {
			return err
		}
		f.description = &description
	}
	rules := fields["rules"]
	if rules == nil || rules.Tag == "!!null" {
		return nil
	}
	if rules.Kind != yaml.SequenceNode {
		return misplaced("rules", rules, "a list of rules")
	}
	for i, node := range rules.Content {
		rule, err := readRule(fmt.Sprintf("rules[%d]", i), node)
		if err != nil {
			return err
		}
		f.rules = append(f.rules, rule)
	}
	return nil
}

func readRule(at string, node *yaml.Node) (*registryv1.ACLRule, error) {
	fields, err := mapping(at, node, "resource", "access", "exact", "prefix", "glob")
	if err != nil {
		return nil, err
	}
	rule, matches := &registryv1.ACLRule{}, 0
	text := func(name string, use func(string)) {
		if field := fields[name]; field != nil && err == nil {
			var value string
			if value, err = scalar(at+"."+name, field); err == nil {
				use(value)
			}
		}
	}
	text("resource", func(value string) { rule.Resource = value })
	text("exact", func(value string) { rule.Match, matches = &registryv1.ACLRule_Exact{Exact: value}, matches+1 })
	text("prefix", func(value string) { rule.Match, matches = &registryv1.ACLRule_Prefix{Prefix: value}, matches+1 })
	text("glob", func(value string) { rule.Match, matches = &registryv1.ACLRule_Glob{Glob: value}, matches+1 })
	if err != nil {
		return nil, err
	}
	if matches > 1 {
		return nil, fault.Invalid(at, "has more than one of exact, prefix and glob").WithRemedy("write a rule for each")
	}
	rule.Access, err = readAccess(at+".access", fields["access"])
	return rule, err
}

// readAccess reads one word or several.
func readAccess(at string, node *yaml.Node) ([]string, error) {
	switch {
	case node == nil:
		return nil, nil
	case node.Kind == yaml.ScalarNode:
		return strings.Split(node.Value, ","), nil
	case node.Kind != yaml.SequenceNode:
		return nil, misplaced(at, node, "a word or a list of words")
	}
	var words []string
	for i, item := range node.Content {
		word, err := scalar(fmt.Sprintf("%s[%d]", at, i), item)
		if err != nil {
			return nil, err
		}
		words = append(words, word)
	}
	return words, nil
}

// mapping returns the values of a mapping that has none but the known keys, each once.
func mapping(at string, node *yaml.Node, known ...string) (map[string]*yaml.Node, error) {
	if node.Kind != yaml.MappingNode {
		return nil, misplaced(at, node, "a mapping of "+strings.Join(known, ", "))
	}
	fields := map[string]*yaml.Node{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		field := cmp.Or(strings.Trim(at+"."+key.Value, "."), "--file")
		switch {
		case !slices.Contains(known, key.Value):
			return nil, fault.Invalid(field, "is no key that is known here (line %d)", key.Line).WithRemedy("use " + strings.Join(known, ", "))
		case fields[key.Value] != nil:
			return nil, fault.Invalid(field, "is given twice (line %d)", key.Line).WithRemedy("give it once")
		}
		fields[key.Value] = node.Content[i+1]
	}
	return fields, nil
}

func scalar(at string, node *yaml.Node) (string, error) {
	if node.Kind != yaml.ScalarNode {
		return "", misplaced(at, node, "a text")
	}
	return node.Value, nil
}

func misplaced(at string, node *yaml.Node, wanted string) error {
	found := map[yaml.Kind]string{
		yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value", yaml.AliasNode: "an alias",
	}[node.Kind]
	return fault.Invalid(at, "is %s (line %d); %s is wanted", found, node.Line, wanted).WithRemedy(policyExample)
}
