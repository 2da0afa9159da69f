package rpc

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// instances answers n instances and the encoded message that has nothing but them.
func instances(t require.TestingT, n int) ([]*registryv1.ServiceInstance, []byte) {
	var out []*registryv1.ServiceInstance
	for range n {
		out = append(out, &registryv1.ServiceInstance{Datacenter: "dc1", Node: &registryv1.Node{Name: "n1", Meta: map[string]string{"a": "b"}}})
	}
	data, err := proto.Marshal(&registryv1.QueryServiceResponse{Instances: out})
	require.NoError(t, err)
	return out, data
}

// What was encoded before arrives as if it had been encoded now, whatever its size.
func TestEncodedFieldsArriveAsFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list, encoded := instances(t, rapid.IntRange(0, 2000).Draw(t, "instances"))
		sent := &registryv1.QueryServiceResponse{Meta: &registryv1.QueryMeta{Datacenter: "dc1", Index: 9}}
		sent.ProtoReflect().SetUnknown(encoded)
		c := newCodec()
		data, err := c.Marshal(sent)
		require.NoError(t, err)
		got := &registryv1.QueryServiceResponse{}
		require.NoError(t, c.Unmarshal(data, got))
		want := &registryv1.QueryServiceResponse{Instances: list, Meta: sent.GetMeta()}
		require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
		require.Len(t, sent.ProtoReflect().GetUnknown(), len(encoded), "the response is left as it was")
	})
}

func TestWhatIsEncodedIsNotCopied(t *testing.T) {
	_, encoded := instances(t, 1000)
	sent := &registryv1.QueryServiceResponse{Meta: &registryv1.QueryMeta{Index: 9}}
	sent.ProtoReflect().SetUnknown(encoded)
	data, err := newCodec().Marshal(sent)
	require.NoError(t, err)
	require.Len(t, data, 2)
	require.Same(t, &encoded[0], &data[1].ReadOnlyData()[0])
	_, err = newCodec().Marshal("no message")
	require.Error(t, err)
}

// What servers send each other is read by those that have no fast encoders, and the other way round.
func TestFastEncodersSpeakProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := &registryv1.ProposeRequest{}
		for range rapid.IntRange(0, 40).Draw(t, "proposals") {
			sent.Proposals = append(sent.Proposals, &registryv1.Proposal{
				Command: rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "command"),
				Claims:  rapid.SliceOfN(rapid.Uint64(), 0, 3).Draw(t, "claims"),
				Version: rapid.Uint32().Draw(t, "version"),
			})
		}
		if unknown := rapid.SampledFrom([]string{"", "\xf8\x01\x07"}).Draw(t, "unknown"); unknown != "" {
			sent.ProtoReflect().SetUnknown([]byte(unknown))
		}
		usual, quick := newCodec().CodecV2, newCodec()
		for _, way := range [][2]interface {
			Marshal(v any) (mem.BufferSlice, error)
			Unmarshal(data mem.BufferSlice, v any) error
		}{{usual, quick}, {quick, usual}, {quick, quick}} {
			data, err := way[0].Marshal(sent)
			require.NoError(t, err)
			got := &registryv1.ProposeRequest{Proposals: []*registryv1.Proposal{{Version: 1}}}
			require.NoError(t, way[1].Unmarshal(data, got))
			require.Empty(t, cmp.Diff(sent, got, protocmp.Transform()))
		}
	})
	require.Error(t, newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer("\x0a\xff")}, &registryv1.ProposeRequest{}))
}

// marker is the text in a message that populate filled.
const marker = "zq7"

// populate sets every field of a message and those in it, and of each oneof the one whose turn it is.
func populate(m protoreflect.Message, turn, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if one := f.ContainingOneof(); one != nil && one.Fields().Get(turn%one.Fields().Len()) != f {
			continue
		}
		switch {
		case f.Message() != nil && depth == 0:
		case f.IsMap():
			value := m.NewField(f).Map().NewValue()
			if f.MapValue().Message() != nil {
				populate(value.Message(), turn, depth-1)
			} else {
				value = scalar(f.MapValue())
			}
			m.Mutable(f).Map().Set(scalar(f.MapKey()).MapKey(), value)
		case f.IsList() && f.Message() != nil:
			populate(m.Mutable(f).List().AppendMutable().Message(), turn, depth-1)
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f))
		case f.Message() != nil:
			populate(m.Mutable(f).Message(), turn, depth-1)
		default:
			m.Set(f, scalar(f))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() { //nolint:exhaustive // there are no others in the contracts' lists and maps
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(marker)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0xff})
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(7)
	default:
		return f.Default()
	}
}

// The fast decoders take strings as they come, so the codec refuses what protobuf's own would, wherever it lies.
func TestTextIsCheckedWhereverItIs(t *testing.T) {
	const turns, depth = 20, 4
	quick, texts := newCodec(), 0
	protoregistry.GlobalTypes.RangeMessages(func(kind protoreflect.MessageType) bool {
		if _, ok := kind.New().Interface().(fast); !ok {
			return true
		}
		for turn := range turns {
			sent := kind.New()
			populate(sent, turn, depth)
			data, err := proto.Marshal(sent.Interface())
			require.NoError(t, err)
			got := kind.New().Interface()
			require.NoError(t, quick.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, got))
			require.Empty(t, cmp.Diff(sent.Interface(), got, protocmp.Transform()))
			for at := bytes.Index(data, []byte(marker)); at >= 0; {
				bad := bytes.Clone(data)
				bad[at] = 0xff
				require.ErrorContains(t, quick.CodecV2.Unmarshal(mem.BufferSlice{mem.SliceBuffer(bad)}, kind.New().Interface()), "UTF-8")
				err := quick.Unmarshal(mem.BufferSlice{mem.SliceBuffer(bad)}, kind.New().Interface())
				require.ErrorContains(t, err, "UTF-8")
				texts++
				next := bytes.Index(data[at+1:], []byte(marker))
				if next < 0 {
					break
				}
				at += 1 + next
			}
		}
		return true
	})
	require.Greater(t, texts, 1000, "the contracts are not loaded, so nothing is tested")

	text, err := proto.Marshal(&registryv1.SetRequest{Value: []byte("\xff")})
	require.NoError(t, err)
	text[0] = 1<<3 | 2 // The value's bytes as the key.
	require.ErrorContains(t, quick.Unmarshal(mem.BufferSlice{mem.SliceBuffer(text)}, &registryv1.SetRequest{}), "konsul.registry.v1.SetRequest.key is not UTF-8")
}

// What comes from outside is read as protobuf's own decoder reads it, or refused.
func FuzzDecoders(f *testing.F) {
	for turn := range 8 {
		m := (&registryv1.TxnRequest{}).ProtoReflect()
		populate(m, turn, 4)
		data, err := proto.Marshal(m.Interface())
		require.NoError(f, err)
		f.Add(data)
	}
	quick := newCodec()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, kind := range []proto.Message{&registryv1.TxnRequest{}, &registryv1.RegisterNodeRequest{}, &registryv1.SetRequest{}} {
			got := kind.ProtoReflect().New().Interface()
			if quick.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, got) != nil {
				continue
			}
			want := kind.ProtoReflect().New().Interface()
			require.NoError(t, proto.Unmarshal(data, want))
			require.Empty(t, cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreUnknown()))
		}
	})
}
