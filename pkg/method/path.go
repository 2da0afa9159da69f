package method

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Path leads to a text in messages of one type.
type Path []protoreflect.FieldDescriptor

// ParsePath reads a path such as "policy.name". Only its last field may be repeated.
func ParsePath(message protoreflect.MessageDescriptor, path string) (Path, error) {
	var out Path
	names := strings.Split(path, ".")
	for i, name := range names {
		if message == nil {
			return nil, fmt.Errorf("%q leads into a field that is no message", path)
		}
		field := message.Fields().ByName(protoreflect.Name(name))
		last := i == len(names)-1
		switch {
		case field == nil:
			return nil, fmt.Errorf("%s has no field %q", message.FullName(), name)
		case last && field.Kind() != protoreflect.StringKind, field.IsMap(), !last && field.IsList():
			return nil, fmt.Errorf("%q does not lead to a text", path)
		}
		out, message = append(out, field), field.Message()
	}
	return out, nil
}

// Values returns what is there, which is one text unless the field is repeated.
func (p Path) Values(message proto.Message) []string {
	m, last := p.parent(message)
	if !last.IsList() {
		return []string{m.Get(last).String()}
	}
	list := m.Get(last).List()
	out := make([]string, list.Len())
	for i := range out {
		out[i] = list.Get(i).String()
	}
	return out
}

// Value returns the one text there.
func (p Path) Value(message proto.Message) string {
	m, last := p.parent(message)
	return m.Get(last).String()
}

// Fill sets a text of the message itself that is empty.
func (p Path) Fill(message proto.Message, value string) {
	if m, last := p.parent(message); m.Get(last).String() == "" {
		m.Set(last, protoreflect.ValueOfString(value))
	}
}

// parent returns the message that the last field is in.
func (p Path) parent(message proto.Message) (protoreflect.Message, protoreflect.FieldDescriptor) {
	m := message.ProtoReflect()
	for _, field := range p[:len(p)-1] {
		m = m.Get(field).Message()
	}
	return m, p[len(p)-1]
}
