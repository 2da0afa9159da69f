package fsm

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

func TestACommandNeedsTheVersionOfItsNewestPart(t *testing.T) {
	row := &registryv1.RecordKey{Table: registryv1.Table_TABLE_KV, Key: "k"}
	old := &registryv1.Command{
		Time: timestamppb.Now(), RequestId: "r", Epoch: 1,
		Operations: []*registryv1.Operation{
			{Op: &registryv1.Operation_Put{Put: &registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: "k", Flags: 3}}},
			{Op: &registryv1.Operation_Delete{Delete: row}},
			{Op: &registryv1.Operation_DeletePrefix{DeletePrefix: row}},
			{Op: &registryv1.Operation_Replicate{Replicate: &registryv1.Record{Table: registryv1.Table_TABLE_KV}}},
		},
		Conditions: []*registryv1.Condition{{Row: row, ModifyIndex: 4, Reason: "CAS_MISMATCH"}},
	}
	require.EqualValues(t, 1, Needs(old))

	digest, leased := proto.CloneOf(old), proto.CloneOf(old)
	digest.Digest, leased.GetOperations()[0].GetPut().Lease = 1, "l"
	require.EqualValues(t, 3, Needs(digest))
	require.EqualValues(t, 2, Needs(leased))

	// Every field that version 1 does not have makes a command new, wherever it is set.
	for _, place := range []func(*registryv1.Command) protoreflect.Message{
		func(c *registryv1.Command) protoreflect.Message { return c.ProtoReflect() },
		func(c *registryv1.Command) protoreflect.Message { return c.GetOperations()[1].ProtoReflect() },
		func(c *registryv1.Command) protoreflect.Message { return c.GetConditions()[0].ProtoReflect() },
	} {
		fields := place(old).Descriptor().Fields()
		for i := range fields.Len() {
			field := fields.Get(i)
			first, second := fieldsOf(place(old).Descriptor().Name())
			if field.Number() <= first {
				continue
			}
			want := uint32(transactions)
			if field.Number() > second {
				want = Version
			}
			changed := proto.CloneOf(old)
			m := place(changed)
			m.Set(field, some(m, field))
			require.Equal(t, want, Needs(changed), "%s", field.FullName())
		}
	}
}

// fieldsOf answers the last fields of a message in versions 1 and 2.
func fieldsOf(message protoreflect.Name) (first, second protoreflect.FieldNumber) {
	switch message {
	case "Command":
		return 6, 9
	case "Operation":
		return 4, 8
	case "Condition":
		return 3, 5
	}
	return 0, 0
}

// some answers a value of a field that is not its default.
func some(m protoreflect.Message, field protoreflect.FieldDescriptor) protoreflect.Value {
	if field.IsList() {
		list := m.NewField(field)
		list.List().Append(list.List().NewElement())
		return list
	}
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x")
	}
	return m.NewField(field)
}
