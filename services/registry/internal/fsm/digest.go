package fsm

import (
	"crypto/sha256"
	"encoding/binary"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// DigestOf returns a hash of a request for Command.digest, without the datacenter that it names:
// the same request may come in by another one. It is 0 for a request that has no id.
func DigestOf(req any) uint64 {
	message, ok := req.(proto.Message)
	if !ok || RequestIDOf(req) == "" {
		return 0
	}
	if r, ok := req.(interface{ GetDatacenter() string }); ok && r.GetDatacenter() != "" {
		message = placeless(message)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return 0
	}
	sum := sha256.Sum256(data)
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// placeless returns a request without its datacenter. It shares everything else.
func placeless(message proto.Message) proto.Message {
	m := message.ProtoReflect()
	out := m.New()
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Name() != "datacenter" {
			out.Set(field, value)
		}
		return true
	})
	out.SetUnknown(m.GetUnknown())
	return out.Interface()
}

// RequestIDOf returns the id that a request came with; empty if it has none.
func RequestIDOf(req any) string {
	if r, ok := req.(interface{ GetRequestId() string }); ok {
		return r.GetRequestId()
	}
	return ""
}
