// Package output writes what konsulctl has to say: a table for people, or the same document as REST
// answers, as JSON or YAML. It holds no state.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Format is how an answer is written. It is a flag value; the zero value is Table.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats returns every format's name.
func Formats() []string { return []string{string(Table), string(JSON), string(YAML)} }

// String implements pflag.Value.
func (f *Format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *Format) Type() string { return "format" }

// Set implements pflag.Value.
func (f *Format) Set(text string) error {
	switch Format(text) {
	case Table, JSON, YAML:
		*f = Format(text)
		return nil
	}
	return fmt.Errorf("%q is no format; there are table, json and yaml", text)
}

// Find takes the format from arguments that are no good otherwise.
func (f *Format) Find(args []string) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.VarP(f, "output", "o", "")
	flags.BoolP("help", "h", false, "")
	_ = flags.Parse(args) // What is wrong with them is known.
}

// Write writes a document: a protobuf message, or anything encoding/json takes. Only the table
// format calls table.
func (f *Format) Write(w io.Writer, document any, table func(*Grid)) error {
	if *f != JSON && *f != YAML {
		grid := NewGrid(w)
		table(grid)
		return grid.Flush()
	}
	text, err := Marshal(document)
	if err != nil {
		return err
	}
	if *f == YAML {
		if text, err = toYAML(text); err != nil {
			return err
		}
	}
	_, err = w.Write(text)
	return err
}

// Marshal returns a document as indented JSON with a line end. Messages have the names of the
// contracts (snake_case) and every field, as over REST; equal messages give equal text.
func Marshal(document any) ([]byte, error) {
	raw, err := RawJSON(document)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	// protojson varies its white space from build to build.
	if err := json.Indent(&text, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("indent: %w", err)
	}
	text.WriteByte('\n')
	return text.Bytes(), nil
}

// RawJSON returns a document as JSON, to be put inside another one.
func RawJSON(document any) (json.RawMessage, error) {
	if message, ok := document.(proto.Message); ok {
		raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(message)
		if err != nil {
			return nil, fmt.Errorf("encode answer: %w", err)
		}
		return raw, nil
	}
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return raw, nil
}

// toYAML turns JSON, which is YAML, into the block style people read. The order of keys stays.
func toYAML(text []byte) ([]byte, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, fmt.Errorf("read back answer: %w", err)
	}
	block(&node)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&node); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return out.Bytes(), nil
}

func block(node *yaml.Node) {
	empty := len(node.Content) == 0
	if node.Kind == yaml.ScalarNode || !empty {
		node.Style = 0
	}
	for _, child := range node.Content {
		block(child)
	}
}
