// Package lock decides what locks mean: who may have one, what its fencing token is, and whose turn
// it is.
//
// A lock is a row that names the lease that holds it. Its token is the index of the acquisition:
// two acquisitions of a lock never share a log entry, and indexes never go back, so no token is
// given twice. Whether a lock may be had is a condition, which is decided when the command is
// applied. A lock that goes with its lease keeps its row until its delay is over by the leaders'
// time; one that is released is gone at once. A holder that was paused and believes itself still
// inside is stopped by its token alone: fence on a write, held in a transaction, or whatever else
// compares tokens.
//
// Writer, Get and List are pure functions. Turns lets those who wait on the leader ask one after
// the other, and is safe for concurrent use.
package lock
