package rpc

import (
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

// instances returns n instances and the encoded message that has nothing but them.
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

// What servers send each other is read by those that have no generated code, and the other way
// round.
func TestGeneratedCodeSpeaksProtobuf(t *testing.T) {
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

// Public messages are decoded by protobuf's own decoder, which refuses strings that are not UTF-8.
// Only what servers of one datacenter send each other has generated code.
func TestOnlyInternalMessagesHaveGeneratedCode(t *testing.T) {
	internal := []string{"konsul/registry/v1/internal.proto", "konsul/registry/v1/record.proto"}
	count := 0
	protoregistry.GlobalTypes.RangeMessages(func(kind protoreflect.MessageType) bool {
		if _, ok := kind.New().Interface().(generated); ok {
			count++
			require.Contains(t, internal, kind.Descriptor().ParentFile().Path())
		}
		return true
	})
	require.Greater(t, count, 20, "the contracts are not loaded, so nothing is tested")
	text, err := proto.Marshal(&registryv1.SetRequest{Value: []byte("\xff")})
	require.NoError(t, err)
	text[0] = 1<<3 | 2 // The value's bytes as the key.
	require.ErrorContains(t, newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(text)}, &registryv1.SetRequest{}), "UTF-8")
}
