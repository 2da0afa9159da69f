package fsm

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Version is the highest command version this program understands. It grows by one when commands get a
// kind or a field that released programs do not know.
//
//	1  put, delete, delete_prefix, replicate, on modify indexes
//	2  transactions, leases and locks
//	3  the digest of what was asked
const Version = 3

// transactions is the version that brought leases; a row that has one takes another row along.
const transactions = 2

// Needs answers which version a server must understand to apply a command: the highest of what is in it.
func Needs(cmd *registryv1.Command) uint32 {
	needs := highest(cmd.ProtoReflect(), 1)
	for _, op := range cmd.GetOperations() {
		needs = highest(op.ProtoReflect(), needs)
		if op.GetPut().GetLease() != "" {
			needs = max(needs, transactions)
		}
	}
	for _, c := range cmd.GetConditions() {
		needs = highest(c.ProtoReflect(), needs)
	}
	return needs
}

// highest answers the highest version of the fields that are set.
func highest(m protoreflect.Message, needs uint32) uint32 {
	first, second := fieldsOf(m.Descriptor().Name())
	m.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		switch n := field.Number(); {
		case n > second:
			needs = Version
		case n > first:
			needs = max(needs, transactions)
		}
		return true
	})
	return needs
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
