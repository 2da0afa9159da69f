// Package wire goes over the fields of encoded protobuf messages without decoding them (protobuf.dev, "Encoding").
package wire

import "google.golang.org/protobuf/encoding/protowire"

// Field is one field of an encoded message.
type Field struct {
	Number protowire.Number
	Type   protowire.Type
	// Content is the bytes of a field that has a length, part of the message, and not nil; nil for any other.
	Content []byte
	// Varint is the number of a field that is a varint.
	Varint uint64
}

// Next answers the first field of an encoded message and how many bytes it takes there. That is negative where none begins;
// protowire.ParseError makes an error of it. Most tags and lengths are one byte, which takes a third of the time that the library takes for any.
func Next(message []byte) (f Field, n int) {
	const (
		more     = 0x80 // Another byte follows.
		typeBits = 3
	)
	if len(message) > 1 && message[0] < more && message[0]>>typeBits > 0 {
		f.Number, f.Type, n = protowire.Number(message[0]>>typeBits), protowire.Type(message[0]&(1<<typeBits-1)), 1
		if f.Type == protowire.BytesType && message[1] < more {
			end := 2 + int(message[1])
			if end > len(message) {
				return Field{}, -1
			}
			f.Content = message[2:end:end]
			return f, end
		}
	} else if f.Number, f.Type, n = protowire.ConsumeTag(message); n < 0 {
		return Field{}, n
	}
	var length int
	switch f.Type { //nolint:exhaustive // others have nothing that anybody asks for
	case protowire.BytesType:
		f.Content, length = protowire.ConsumeBytes(message[n:])
	case protowire.VarintType:
		f.Varint, length = protowire.ConsumeVarint(message[n:])
	default:
		length = protowire.ConsumeFieldValue(f.Number, f.Type, message[n:])
	}
	if length < 0 {
		return Field{}, length
	}
	return f, n + length
}
