package manifests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schemas knows the objects of one Kubernetes version. Not safe for concurrent use.
type Schemas struct {
	files    fs.FS
	compiler *jsonschema.Compiler
	// kinds maps an object's kind to its schema, per document that has been read.
	kinds map[string]map[string]string
}

// NewSchemas returns the schemas in dir, a folder of OpenAPI 3 documents: api/v1.json,
// apis/apps/v1.json, …
func NewSchemas(dir string) *Schemas {
	return &Schemas{files: os.DirFS(dir), compiler: jsonschema.NewCompiler(), kinds: map[string]map[string]string{}}
}

// Validate returns what is wrong with an object: a field of the wrong type, a missing one, one that
// Kubernetes does not know, or an unknown kind.
func (s *Schemas) Validate(object Object) error {
	document := documentOf(object.APIVersion())
	kinds, err := s.read(document)
	if err != nil {
		return fmt.Errorf("%s: %w", object, err)
	}
	pointer, ok := kinds[object.Kind()]
	if !ok {
		return fmt.Errorf("%s: %s has no such kind", object, object.APIVersion())
	}
	schema, err := s.compiler.Compile(document + "#/components/schemas/" + pointer)
	if err != nil {
		return fmt.Errorf("compile schema of %s: %w", object, err)
	}
	plain, err := roundTrip(object)
	if err != nil {
		return fmt.Errorf("%s: %w", object, err)
	}
	if err := schema.Validate(plain); err != nil {
		return fmt.Errorf("%s: %w", object, err)
	}
	return nil
}

func documentOf(apiVersion string) string {
	if strings.Contains(apiVersion, "/") {
		return path.Join("apis", apiVersion+".json")
	}
	return path.Join("api", apiVersion+".json")
}

// read adds one document's schemas, made strict, to the compiler.
func (s *Schemas) read(document string) (map[string]string, error) {
	if kinds, ok := s.kinds[document]; ok {
		return kinds, nil
	}
	text, err := fs.ReadFile(s.files, document)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("unknown apiVersion")
	}
	if err != nil {
		return nil, fmt.Errorf("read schemas: %w", err)
	}
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("parse schemas %q: %w", document, err)
	}
	root, _ := parsed.(map[string]any)
	schemas := Object(Object(root).sub("components")).sub("schemas")
	kinds := map[string]string{}
	for name, schema := range schemas {
		definition, _ := schema.(map[string]any)
		tighten(definition)
		for _, kind := range kindsOf(definition) {
			kinds[kind] = name
		}
	}
	if err := s.compiler.AddResource(document, root); err != nil {
		return nil, fmt.Errorf("add schemas %q: %w", document, err)
	}
	s.kinds[document] = kinds
	return kinds, nil
}

// kindsOf returns the kinds a schema describes in its own document's group and version.
func kindsOf(definition map[string]any) []string {
	entries, _ := definition["x-kubernetes-group-version-kind"].([]any)
	// Options such as DeleteOptions belong to every group; they are no objects.
	if len(entries) != 1 {
		return nil
	}
	entry, _ := entries[0].(map[string]any)
	return []string{Object(entry).text("kind")}
}

// tighten forbids what a schema does not name: OpenAPI would let it pass, Kubernetes would drop it.
func tighten(schema map[string]any) {
	properties, named := schema["properties"].(map[string]any)
	_, open := schema["additionalProperties"]
	if named && !open && schema["x-kubernetes-preserve-unknown-fields"] != true {
		schema["additionalProperties"] = false
	}
	for _, property := range properties {
		if sub, ok := property.(map[string]any); ok {
			tighten(sub)
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if sub, ok := schema[key].(map[string]any); ok {
			tighten(sub)
		}
	}
}

// roundTrip turns YAML's number types into JSON's.
func roundTrip(object Object) (any, error) {
	text, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("write as JSON: %w", err)
	}
	plain, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	return plain, nil
}
