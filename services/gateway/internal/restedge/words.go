package restedge

import (
	"bytes"
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// People write "passing" and "stale"; the contracts, whose words are unique over a package, say
// HEALTH_STATUS_PASSING and READ_MODE_STALE. Both are understood, in parameters and in bodies.

// inFull returns the name of a value as the contract has it. What it does not know stays as it is.
func inFull(d protoreflect.EnumDescriptor, text string) string {
	for _, full := range words(d) {
		if strings.EqualFold(text, brief(d, full)) {
			return full
		}
	}
	return text
}

// words returns the names of an enum's values but for the one that says nothing.
func words(d protoreflect.EnumDescriptor) []string {
	var out []string
	for i := range d.Values().Len() {
		if v := d.Values().Get(i); v.Number() != 0 {
			out = append(out, string(v.Name()))
		}
	}
	return out
}

// brief returns the name of a value without what all values of its enum begin with.
func brief(d protoreflect.EnumDescriptor, full string) string {
	unspecified := string(d.Values().ByNumber(0).Name())
	return strings.ToLower(strings.TrimPrefix(full, strings.TrimSuffix(unspecified, "UNSPECIFIED")))
}

// spelled reads a message out of JSON that holds short words.
func spelled(message proto.Message, text []byte) error {
	s := speller{in: json.NewDecoder(bytes.NewReader(text))}
	s.in.UseNumber()
	if err := s.spell(message.ProtoReflect().Descriptor(), nil); err != nil {
		return err
	}
	proto.Reset(message)
	return protojson.Unmarshal(s.out.Bytes(), message)
}

// speller copies JSON and spells words out. All else stays as it is, mistakes too.
type speller struct {
	in  *json.Decoder
	out bytes.Buffer
}

// spell copies a value: a message's if d is not nil, a word if enum is not, or a list of them.
func (s *speller) spell(d protoreflect.MessageDescriptor, enum protoreflect.EnumDescriptor) error {
	token, err := s.in.Token()
	if err != nil {
		return err
	}
	switch token := token.(type) {
	case json.Delim:
		s.out.WriteRune(rune(token))
		for n := 0; s.in.More(); n++ {
			if n > 0 {
				s.out.WriteByte(',')
			}
			inner, words := d, enum
			if token == '{' {
				if inner, words, err = s.key(d); err != nil {
					return err
				}
			}
			if err := s.spell(inner, words); err != nil {
				return err
			}
		}
		end, err := s.in.Token()
		if delim, ok := end.(json.Delim); ok {
			s.out.WriteRune(rune(delim))
		}
		return err
	case string:
		if enum != nil {
			return s.write(inFull(enum, token))
		}
	}
	return s.write(token)
}

// key copies the name of a field and returns what it holds.
func (s *speller) key(d protoreflect.MessageDescriptor) (protoreflect.MessageDescriptor, protoreflect.EnumDescriptor, error) {
	token, err := s.in.Token()
	if err != nil {
		return nil, nil, err
	}
	if err := s.write(token); err != nil {
		return nil, nil, err
	}
	s.out.WriteByte(':')
	name, _ := token.(string)
	if field := child(d, name); field != nil && !field.IsMap() {
		return field.Message(), field.Enum(), nil
	}
	return nil, nil, nil
}

func (s *speller) write(token any) error {
	text, err := json.Marshal(token)
	s.out.Write(text)
	return err
}

// child returns a message's field by its name in the contract or in JSON, nil if there is none.
func child(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if d == nil {
		return nil
	}
	if field := d.Fields().ByName(protoreflect.Name(name)); field != nil {
		return field
	}
	return d.Fields().ByJSONName(name)
}
