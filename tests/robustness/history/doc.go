// Package history records what clients of a registry did and saw, and judges it.
//
// Three judges look at one history. Order asks porcupine whether the writes and the reads of one
// mode can be put in an order that agrees with real time and with what the mode promises, key by
// key. Exact holds every read, of every mode, and every watch against the versions that the writes
// made: whoever says "as of index i" must say what was true at i, and on one server i never goes
// back. Exclusive holds locks to one holder at a time and to tokens that grow.
//
// A write whose fate is unknown may have taken effect at any time after its call, or never; a write
// that was refused must never be seen. A Recorder is safe for concurrent use; the judges are pure
// functions.
package history
