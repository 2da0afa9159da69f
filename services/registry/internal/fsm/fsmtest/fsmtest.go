// Package fsmtest applies single commands, for tests of what makes commands. It may be used
// concurrently on different states.
package fsmtest

import (
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/fsm"
)

// Apply does what one command says at a Raft index, as it comes off the log, whatever its request
// id, and returns its outcome.
func Apply(tx fsm.Tx, index uint64, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	data, err := cmd.MarshalVT()
	if err != nil {
		return nil, err
	}
	decoded, err := fsm.Decode(data)
	if err != nil {
		return nil, err
	}
	results, err := fsm.New().Apply(tx, index, decoded)
	if err != nil {
		return nil, err
	}
	return results[0], nil
}
