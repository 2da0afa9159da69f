package catalog

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// head is the part of a service's row that the view keeps beside the row. It refers to the row.
type head struct {
	name, node, address, owner []byte
	port                       uint32
}

// headFields are the numbers of a head's fields.
type headFields struct{ name, node, address, owner, port protowire.Number }

func newHeadFields() headFields {
	fields := (&registryv1.Service{}).ProtoReflect().Descriptor().Fields()
	number := func(name protoreflect.Name) protowire.Number { return fields.ByName(name).Number() }
	return headFields{
		name: number("name"), node: number("node"), address: number("address"), owner: number("registered_by"), port: number("port"),
	}
}

// read reads the head of a row without decoding the rest. A row with ten services is applied on
// every server with each registration, and to decode their tags and meta takes a tenth of its
// processor time.
func (f headFields) read(raw []byte) (h head, err error) {
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return head{}, protowire.ParseError(n)
		}
		raw = raw[n:]
		switch kind { //nolint:exhaustive // a head has no others
		case protowire.BytesType:
			var text []byte
			if text, n = protowire.ConsumeBytes(raw); n >= 0 {
				h.set(f, number, text)
			}
		case protowire.VarintType:
			var value uint64
			if value, n = protowire.ConsumeVarint(raw); number == f.port {
				h.port = uint32(value) //nolint:gosec // as protobuf reads it
			}
		default:
			n = protowire.ConsumeFieldValue(number, kind, raw)
		}
		if n < 0 {
			return head{}, protowire.ParseError(n)
		}
		raw = raw[n:]
	}
	return h, nil
}

func (h *head) set(f headFields, number protowire.Number, text []byte) {
	switch number {
	case f.name:
		h.name = text
	case f.node:
		h.node = text
	case f.address:
		h.address = text
	case f.owner:
		h.owner = text
	}
}
