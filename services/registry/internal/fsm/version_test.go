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
	end := &registryv1.EndLease{Id: "l"}
	ends := &registryv1.Command{Operations: []*registryv1.Operation{{Op: &registryv1.Operation_EndLease{EndLease: end}}}}
	require.EqualValues(t, 2, Needs(ends))
	end.Limit = 1
	require.EqualValues(t, 4, Needs(ends))

	// Every field that version 1 does not have makes a command new, wherever it is set.
	for _, place := range []func(*registryv1.Command) protoreflect.Message{
		func(c *registryv1.Command) protoreflect.Message { return c.ProtoReflect() },
		func(c *registryv1.Command) protoreflect.Message { return c.GetOperations()[1].ProtoReflect() },
		func(c *registryv1.Command) protoreflect.Message { return c.GetConditions()[0].ProtoReflect() },
	} {
		fields := place(old).Descriptor().Fields()
		for i := range fields.Len() {
			field := fields.Get(i)
			versions := fieldsOf(place(old).Descriptor().Name())
			want := uint32(1)
			for _, last := range versions {
				if field.Number() > last {
					want++
				}
			}
			if want == 1 {
				continue
			}
			changed := proto.CloneOf(old)
			m := place(changed)
			m.Set(field, some(m, field))
			require.Equal(t, want, Needs(changed), "%s", field.FullName())
		}
	}
}

// fieldsOf returns the last fields of a message in the versions before this one.
func fieldsOf(message protoreflect.Name) []protoreflect.FieldNumber {
	switch message {
	case "Command":
		return []protoreflect.FieldNumber{6, 9, 10, 11}
	case "Operation":
		return []protoreflect.FieldNumber{4, 8, 8, 8}
	case "Condition":
		return []protoreflect.FieldNumber{3, 5, 5, 5}
	}
	return nil
}

// some returns a value of a field that is not its default.
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
