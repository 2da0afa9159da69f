// Package lock decides what locks mean: who may have one, what its token is, and whose turn it is.
//
// A lock is a row that names the lease that holds it; its token is the index of the acquisition,
// which the state machine sees to. Writer, Get and List are pure functions; Turns is safe for
// concurrent use.
package lock
