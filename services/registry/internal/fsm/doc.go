// Package fsm is the registry's replicated state machine: what one committed command does to the
// state. See DESIGN.md beside the service.
//
// Apply is decided by the state and the command alone: it reads no clock, no configuration and no
// network, and its only effect is on the Tx it was handed. The same commands in the same order give
// the same state on every server and in every replay. A command of a kind this binary does not know
// is an error, and whoever drives the machine must stop rather than skip it.
package fsm
