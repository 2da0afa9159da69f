package restedge

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// valueIn takes the value of a key out of a JSON body: base64 in a string, as a read of the key
// tells it.
func valueIn(text []byte) ([]byte, error) {
	var encoded string
	if err := json.Unmarshal(text, &encoded); err == nil {
		if value, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			return value, nil
		}
	}
	return nil, malformedError{
		"body", "is no base64 in a JSON string, which a Content-Type of application/json promises",
		"add ?raw to store the body as it is, or send it with another Content-Type, such as application/octet-stream",
	}
}

// What protojson says of a field.
var (
	badValue     = regexp.MustCompile(`invalid value for (\w+) field ([^ :]+): (.*)$`)
	unknownField = regexp.MustCompile(`unknown field "(.*)"$`)
)

// badBody says in our words what protojson says of the body of a message.
func badBody(d protoreflect.MessageDescriptor, err error) malformedError {
	text := strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
	if part := unknownField.FindStringSubmatch(text); part != nil {
		return malformedError{part[1], "is no field of this call's body", docRemedy}
	}
	if part := badValue.FindStringSubmatch(text); part != nil {
		if field := within(d, part[2], part[1], map[protoreflect.FullName]bool{}); field != nil {
			return malformedError{string(field.Name()), part[3] + " cannot be read", form(field)}
		}
	}
	for _, kind := range []string{"Duration", "Timestamp"} {
		text = strings.ReplaceAll(text, "google.protobuf."+kind, strings.ToLower(kind))
	}
	return malformedError{"body", text, docRemedy}
}

// within finds a field of a message, or of one inside it, by its name in JSON and its kind.
func within(d protoreflect.MessageDescriptor, name, kind string, seen map[protoreflect.FullName]bool) protoreflect.FieldDescriptor {
	if d == nil || seen[d.FullName()] {
		return nil
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		field := d.Fields().Get(i)
		if field.JSONName() == name && field.Kind().String() == kind {
			return field
		}
		if found := within(field.Message(), name, kind, seen); found != nil {
			return found
		}
	}
	return nil
}
