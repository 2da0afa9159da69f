package restedge

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"konsul.dev/pkg/fault"
)

// queryParser is grpc-gateway's, but refuses parameters that nobody knows, which it would ignore: a
// misspelt cas must not become an unconditional write. A parameter without a value is true, and one
// of a few words may be written short: read_mode=stale.
type queryParser struct{}

// Parse implements runtime.QueryParameterParser.
func (queryParser) Parse(target proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	message := target.ProtoReflect()
	checked := make(url.Values, len(values))
	for name, given := range values {
		field := leaf(message.Descriptor(), name)
		switch {
		case field == nil && name == "raw":
			continue
		case field == nil:
			return malformedError{name, "is no parameter of this call", docRemedy}
		case field.Kind() == protoreflect.BoolKind && len(given) == 1 && given[0] == "":
			given = []string{"true"}
		case field.Kind() == protoreflect.EnumKind:
			given = slices.Clone(given)
			for i, text := range given {
				given[i] = inFull(field.Enum(), text)
			}
		}
		checked[name] = given
	}
	parser := &runtime.DefaultQueryParser{}
	err := parser.Parse(target, checked, filter)
	if err == nil {
		return nil
	}
	// It does not say which parameter it was in a form of its own, so each is tried alone.
	for _, name := range slices.Sorted(maps.Keys(checked)) {
		if alone := parser.Parse(message.New().Interface(), url.Values{name: checked[name]}, filter); alone != nil {
			return malformedError{name, wrong(values[name]), form(leaf(message.Descriptor(), name))}
		}
	}
	return malformedError{"query", err.Error(), docRemedy}
}

// leaf returns the field that a parameter sets, nil if there is none: "limit", "lease.id" or, of a
// map, "meta[key]".
func leaf(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	// The key of a map's entry may hold dots.
	mapped, _, isEntry := strings.Cut(name, "[")
	if isEntry = isEntry && strings.HasSuffix(name, "]"); isEntry {
		name = mapped
	}
	var field protoreflect.FieldDescriptor
	for part := range strings.SplitSeq(name, ".") {
		if field = child(d, part); field == nil {
			return nil
		}
		d = field.Message()
	}
	if isEntry && !field.IsMap() {
		return nil
	}
	return field
}

func wrong(given []string) string { return fmt.Sprintf("%q cannot be read", strings.Join(given, ", ")) }

// form says how a parameter is written.
func form(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return "write true or false"
	case protoreflect.EnumKind:
		all := words(field.Enum())
		for i, full := range all {
			all[i] = brief(field.Enum(), full)
		}
		return "use one of " + strings.Join(all, ", ")
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return "write a whole number, 0 or more"
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return "write a whole number"
	case protoreflect.BytesKind:
		return "write it in base64"
	case protoreflect.StringKind:
		return "write a text"
	case protoreflect.MessageKind:
		switch field.Message().FullName() {
		case "google.protobuf.Duration":
			return "write a number and a unit, such as 30s or 5m"
		case "google.protobuf.Timestamp":
			return "write a time such as 2026-01-31T15:04:05Z"
		}
	}
	return docRemedy
}

// malformedError is what is wrong with a request before it is one. grpc-gateway passes on nothing
// but the text of an error, so the text holds all that a fault would, for malformed to find.
type malformedError struct{ Field, Message, Remedy string }

const malformedMark = "malformed request: "

// Error implements error.
func (m malformedError) Error() string {
	text, _ := json.Marshal(m) // Strings can be encoded.
	return malformedMark + string(text)
}

// malformed returns the fault that the text of a malformedError stands for, and whether it is one.
func malformed(text string) (*fault.Error, bool) {
	var m malformedError
	encoded, ok := strings.CutPrefix(text, malformedMark)
	if !ok || json.Unmarshal([]byte(encoded), &m) != nil {
		return nil, false
	}
	return fault.Invalid(m.Field, "%s", m.Message).WithRemedy(m.Remedy), true
}
