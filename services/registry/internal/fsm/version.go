package fsm

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Version is the highest command version this program understands. It grows by one when commands get a
// kind or a field that released programs do not know.
//
//	1  put, delete, delete_prefix, replicate, on modify indexes
//	2  everything else
const Version = 2

// Needs answers which version a server must understand to apply a command: the highest of what is in it.
// A field that version 1 does not have needs the newest.
func Needs(cmd *registryv1.Command) uint32 {
	needs := highest(cmd.ProtoReflect(), 1)
	for _, op := range cmd.GetOperations() {
		needs = highest(op.ProtoReflect(), needs)
		if op.GetPut().GetLease() != "" {
			needs = Version // It writes another row too.
		}
	}
	for _, c := range cmd.GetConditions() {
		needs = highest(c.ProtoReflect(), needs)
	}
	return needs
}

// highest answers the highest version of the fields that are set.
func highest(m protoreflect.Message, needs uint32) uint32 {
	last := lastOfVersion1(m.Descriptor().Name())
	m.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if field.Number() > last {
			needs = Version
		}
		return true
	})
	return needs
}

// lastOfVersion1 answers the last field of a message in version 1.
func lastOfVersion1(message protoreflect.Name) protoreflect.FieldNumber {
	switch message {
	case "Command":
		return 6
	case "Operation":
		return 4
	case "Condition":
		return 3
	}
	return 0
}
