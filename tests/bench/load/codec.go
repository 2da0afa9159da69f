package load

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// lean is a codec for a generator that shares its processors with the servers: requests may be
// encoded before, and of an answer only the length is looked at.
type lean struct{}

func (lean) Name() string { return "proto" }

func (lean) Marshal(v any) (mem.BufferSlice, error) {
	if encoded, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(encoded)}, nil
	}
	message, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", v)
	}
	text, err := proto.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return mem.BufferSlice{mem.SliceBuffer(text)}, nil
}

func (lean) Unmarshal(data mem.BufferSlice, v any) error {
	length, ok := v.(*int)
	if !ok {
		return errors.New("only the length is decoded")
	}
	*length = data.Len()
	return nil
}
