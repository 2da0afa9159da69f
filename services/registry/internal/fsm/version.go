package fsm

import (
	"slices"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Version is the highest command version this program understands. It grows by one when commands
// get a kind or a field that released programs do not know.
//
//	1  put, delete, delete_prefix, replicate, on modify indexes
//	2  transactions, leases and locks
//	3  the digest of what was asked
//	4  leases that end in several commands, and a bound on what one command deletes
//	5  whether the request id was minted
const Version = 5

const (
	// transactions is the version that brought leases; a row that has one takes another row along.
	transactions = 2
	// Digests is the version that brought Command.digest, which a command can do without while a
	// member does not understand it.
	Digests = 3
	// Bounds is the version that brought Command.max_deleted and EndLease.limit, which a command
	// can do without, too.
	Bounds = 4
	// Minted is the version that brought Command.minted, which a command can do without, too.
	Minted = 5
)

// Admitting returns admit for the commands of one call: it is asked once about a version that it
// admits, and about those below no more. Not safe for concurrent use.
func Admitting(admit func(version uint32) error) func(version uint32) error {
	highest := uint32(0)
	return func(version uint32) error {
		if version <= highest {
			return nil
		}
		err := admit(version)
		if err == nil {
			highest = version
		}
		return err
	}
}

// Needs returns which version a server must understand to apply a command: the highest of what is
// in it.
func Needs(cmd *registryv1.Command) uint32 {
	needs := uint32(1)
	switch {
	case cmd.GetMinted():
		return Minted
	case cmd.GetMaxDeleted() != 0 || slices.ContainsFunc(cmd.GetOperations(), endsInParts) || slices.ContainsFunc(cmd.GetOtherwise(), endsInParts):
		return Bounds
	case cmd.GetDigest() != 0:
		return Digests
	case len(cmd.GetOtherwise()) > 0 || cmd.GetDetailed() || cmd.GetMaxAnswerBytes() != 0:
		needs = transactions
	}
	for _, operation := range cmd.GetOperations() {
		switch op := operation.GetOp().(type) {
		case *registryv1.Operation_Put:
			if op.Put.GetLease() != "" {
				needs = transactions
			}
		case *registryv1.Operation_Delete, *registryv1.Operation_DeletePrefix, *registryv1.Operation_Replicate:
		default:
			needs = transactions
		}
	}
	for _, c := range cmd.GetConditions() {
		if c.GetComparison() != nil || c.GetChooses() {
			needs = transactions
		}
	}
	return needs
}

// endsInParts reports whether an operation ends a lease in several commands.
func endsInParts(operation *registryv1.Operation) bool { return operation.GetEndLease().GetLimit() > 0 }
