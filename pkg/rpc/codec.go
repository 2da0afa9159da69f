package rpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"konsul.dev/pkg/fault"
)

// bigTail is from how many bytes on it is worth while not to copy what is encoded already. gRPC
// would also clear a pooled buffer of up to a megabyte for it.
const bigTail = 8 << 10

// codec is gRPC's codec of protobuf with two shortcuts. There is no difference to be seen at the
// other end.
//
// Responses may carry fields encoded before, where a message keeps those it does not know: they are
// sent as they stand, without being copied, for encoded messages may be put together. Whoever fills
// them in must not change them afterwards.
//
// Messages that vtprotobuf has generated code for (tools/dev/gen/fast.yaml) are encoded and decoded
// by that. Its decoders do not check that strings are UTF-8, so only messages between the
// datacenter's own servers have them.
type codec struct{ encoding.CodecV2 }

// generated is a message that vtprotobuf has generated code for.
type generated interface {
	proto.Message
	SizeVT() int
	MarshalToSizedBufferVT(data []byte) (int, error)
	UnmarshalVT(data []byte) error
}

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	tail := m.ProtoReflect().GetUnknown()
	if len(tail) < bigTail {
		if g, ok := v.(generated); ok {
			return marshalGenerated(g)
		}
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

func marshalGenerated(m generated) (mem.BufferSlice, error) {
	size, pool := m.SizeVT(), mem.BufferPool(mem.NopBufferPool{})
	if !mem.IsBelowBufferPoolingThreshold(size) {
		pool = mem.DefaultBufferPool()
	}
	data := pool.Get(size)
	if _, err := m.MarshalToSizedBufferVT((*data)[:size]); err != nil {
		pool.Put(data)
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	return mem.BufferSlice{mem.NewBuffer(data, pool)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case *sized:
		// gRPC would tell the caller of an internal error.
		v.bytes, v.err = data.Len(), c.Unmarshal(data, v.message)
		return nil
	case generated:
		whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer whole.Free()
		proto.Reset(v)
		if err := v.UnmarshalVT(whole.ReadOnlyData()); err != nil {
			return fmt.Errorf("decode %T: %w", v, err)
		}
		return nil
	default:
		return c.CodecV2.Unmarshal(data, v)
	}
}

// sized is a request that says in how many bytes it came, and whether it could be decoded.
type sized struct {
	message any
	bytes   int
	err     error
}

// undecodable returns the fault of a caller whose request could not be decoded, else nil.
func (s *sized) undecodable(fullMethod string) error {
	if s.err == nil {
		return nil
	}
	return fault.Invalid("request", "is not one of %s", fullMethod).Wrap(s.err).WithRemedy("send what its protobuf definition says")
}
