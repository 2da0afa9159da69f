package rpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// bigTail is from how many bytes on it is worth while not to copy what is encoded already. gRPC would also
// clear a pooled buffer of up to a megabyte for it.
const bigTail = 8 << 10

// codec is gRPC's codec of protobuf, but for responses that carry fields encoded before, where a message keeps
// those it does not know: they are sent as they stand, without being copied. Whoever fills them in must not
// change them afterwards, and there is no difference to be seen at the other end: encoded messages may be put
// together. Other messages are not touched.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	tail := m.ProtoReflect().GetUnknown()
	if len(tail) < bigTail {
		return c.CodecV2.Marshal(v)
	}
	known := m.ProtoReflect().New()
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		known.Set(field, value)
		return true
	})
	head, err := proto.Marshal(known.Interface())
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(tail)}, nil
}
