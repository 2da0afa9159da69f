package catalog

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// draw sets any of a message's fields, but for those that are never stored.
func draw(t *rapid.T, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		stored := f.Name() != "create_index" && f.Name() != "modify_index"
		if !stored || !rapid.Bool().Draw(t, string(f.Name())) {
			continue
		}
		switch {
		case f.IsMap():
			for key, value := range rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "map") {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(value))
			}
		case f.IsList():
			for _, text := range rapid.SliceOf(rapid.String()).Draw(t, "list") {
				m.Mutable(f).List().Append(protoreflect.ValueOfString(text))
			}
		case f.Message() != nil:
			draw(t, m.Mutable(f).Message())
		default:
			m.Set(f, number(t, f))
		}
	}
}

func number(t *rapid.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() { //nolint:exhaustive // rows have no others; draw would panic
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "text"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "flag"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "number"))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "number"))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "number"))
	default:
		return protoreflect.Value{}
	}
}

// Rows are what protobuf's own encoder makes of them, whatever fields they have.
func TestRowsAreEncodedAsProtobufDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		service, node := &registryv1.Service{}, &registryv1.Node{}
		draw(t, service.ProtoReflect())
		draw(t, node.ProtoReflect())
		for _, m := range []proto.Message{service, node} {
			if rapid.Bool().Draw(t, "of a later version") {
				m.ProtoReflect().SetUnknown([]byte("\xf8\x06\x07"))
			}
		}
		for m, got := range map[proto.Message][]byte{service: appendService(nil, service, service.GetRegisteredBy()), node: appendNode(nil, node)} {
			want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		}
	})
}

// What takes the place of another row is checked as if there had been none, whichever parts of it are the same, and however they are damaged.
func TestWhatStandsAsItStoodIsCheckedAllTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		encoded := func(change func(*registryv1.Service)) []byte {
			service := &registryv1.Service{}
			draw(t, service.ProtoReflect())
			change(service)
			return appendService(nil, service, service.GetRegisteredBy())
		}
		before := encoded(func(*registryv1.Service) {})
		raw := slices.Clone(before)
		switch rapid.SampledFrom([]string{"same", "meta", "other", "damaged", "spliced"}).Draw(t, "kind") {
		case "meta":
			service := &registryv1.Service{}
			decode(before, service)
			service.Meta = map[string]string{"build": rapid.String().Draw(t, "build")}
			raw = appendService(nil, service, service.GetRegisteredBy())
		case "other":
			raw = encoded(func(*registryv1.Service) {})
		case "damaged":
			if len(raw) > 0 {
				raw[rapid.IntRange(0, len(raw)-1).Draw(t, "at")] ^= rapid.Byte().Draw(t, "by")
			}
		case "spliced":
			raw = append(raw[:rapid.IntRange(0, len(raw)).Draw(t, "up to")], rapid.SliceOf(rapid.Byte()).Draw(t, "rest")...)
		}
		var fresh, after []string
		noting := func(seen *[]string) visitor {
			return func(field protowire.Number, number uint64, content []byte) {
				*seen = append(*seen, fmt.Sprint(field, number, content))
			}
		}
		want := serviceShape().read(raw, noting(&fresh))
		require.Equal(t, want, serviceShape().readAfter(before, raw, noting(&after)))
		require.Equal(t, fresh, after)
	})
}
