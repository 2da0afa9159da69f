package rpc

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"konsul.dev/pkg/wire"
)

// form is what encoded messages of one type must be like: protobuf, as far down as there are messages, and all text in
// them UTF-8 (protobuf.dev, "Encoding"). What has the form, decoders without reflection and those with it read alike.
type form struct {
	// fields has, by its number, each field that is a text or a message, and nil between them.
	fields []*formField
}

type formField struct {
	name protoreflect.FullName
	// in is nil for a text, else the form of the field's messages.
	in *form
}

// formOf answers the form of a type. Safe for concurrent use.
func (c codec) formOf(m protoreflect.MessageDescriptor) *form {
	if known, ok := c.forms.Load(m.FullName()); ok {
		return known.(*form) //nolint:forcetypeassert // nothing else is stored
	}
	known, _ := c.forms.LoadOrStore(m.FullName(), newForm(m, map[protoreflect.FullName]*form{}))
	return known.(*form) //nolint:forcetypeassert // nothing else is stored
}

// newForm answers the form of a type. Those that were made are in seen, for types may be made of themselves.
func newForm(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]*form) *form {
	if known, ok := seen[m.FullName()]; ok {
		return known
	}
	out := &form{}
	seen[m.FullName()] = out
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		found := &formField{name: f.FullName()}
		switch f.Kind() { //nolint:exhaustive // others have any form
		case protoreflect.StringKind:
		case protoreflect.MessageKind:
			found.in = newForm(f.Message(), seen)
		default:
			continue
		}
		for len(out.fields) <= int(f.Number()) {
			out.fields = append(out.fields, nil)
		}
		out.fields[f.Number()] = found
	}
	return out
}

// mostNested is how deep messages may lie in each other; protobuf's own decoder takes 10,000.
const mostNested = 100

// check answers an error for a message that has another form.
func (t *form) check(raw []byte, depth int) error {
	if depth > mostNested {
		return fmt.Errorf("messages lie in each other more than %d deep", mostNested)
	}
	for len(raw) > 0 {
		field, n := wire.Next(raw)
		if n < 0 {
			return fmt.Errorf("no field: %w", protowire.ParseError(n))
		}
		if field.Number > protowire.MaxValidNumber {
			return fmt.Errorf("field %d: there is no such number", field.Number)
		}
		raw = raw[n:]
		if int(field.Number) >= len(t.fields) {
			continue
		}
		f := t.fields[field.Number]
		if f != nil && field.Type != protowire.BytesType {
			return fmt.Errorf("field %s is of another type", f.name) // Some fast decoders would take it for what it is not.
		}
		switch {
		case f == nil:
		case f.in != nil:
			if err := f.in.check(field.Content, depth+1); err != nil {
				return err
			}
		case !utf8.Valid(field.Content):
			return fmt.Errorf("field %s is not UTF-8", f.name)
		}
	}
	return nil
}
