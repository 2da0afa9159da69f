package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"konsul.dev/pkg/wire"
)

// FuzzNext finds the fields that protowire finds.
func FuzzNext(f *testing.F) {
	message := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "text")
	message = protowire.AppendString(protowire.AppendTag(message, 1000, protowire.BytesType), "")
	message = protowire.AppendVarint(protowire.AppendTag(message, 15, protowire.VarintType), 300)
	message = protowire.AppendBytes(protowire.AppendTag(message, 2, protowire.BytesType), make([]byte, 200))
	message = protowire.AppendFixed64(protowire.AppendTag(message, 3, protowire.Fixed64Type), 7)
	message = protowire.AppendFixed32(protowire.AppendTag(message, 4, protowire.Fixed32Type), 7)
	message = protowire.AppendTag(protowire.AppendTag(message, 5, protowire.StartGroupType), 5, protowire.EndGroupType)
	f.Add(message)
	for _, bad := range [][]byte{{}, {0x0a}, {0x0a, 5, 1}, {0x02, 0}, {0x0e, 0}, {0x0c, 0}, {0x08}, {0x08, 0x80}, {0xff}} {
		f.Add(bad)
		f.Add(append(append([]byte{}, message...), bad...))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		for rest := message; len(rest) > 0; {
			number, kind, n := protowire.ConsumeTag(rest)
			length := n
			if n >= 0 {
				length = protowire.ConsumeFieldValue(number, kind, rest[n:])
			}
			field, took := wire.Next(rest)
			if length < 0 {
				require.Negative(t, took)
				require.Error(t, protowire.ParseError(took))
				return
			}
			require.Equal(t, n+length, took)
			require.Equal(t, number, field.Number)
			require.Equal(t, kind, field.Type)
			require.Equal(t, kind == protowire.BytesType, field.Content != nil)
			if kind == protowire.BytesType {
				content, _ := protowire.ConsumeBytes(rest[n:])
				require.Equal(t, string(content), string(field.Content))
			}
			if kind == protowire.VarintType {
				value, _ := protowire.ConsumeVarint(rest[n:])
				require.Equal(t, value, field.Varint)
			}
			rest = rest[took:]
		}
	})
}

func TestNothingIsNoField(t *testing.T) {
	_, n := wire.Next(nil)
	require.Negative(t, n)
}
