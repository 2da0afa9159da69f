// Package raftnode runs one server of a datacenter's Raft cluster over the registry's store.
//
// It changes the membership, looks after it while it leads (autopilot), and recovers a cluster that lost its
// quorum, offline. A server without Raft state is silent to peers until Open.
//
// It adapts the state machine and the store to the Raft library, proposes commands and tells their
// fate honestly, and says whether this server may answer reads for the cluster. All methods of a
// started Node are safe for concurrent use.
//
// A write that was refused before it entered the log is Unavailable and safe to retry. One whose fate
// is not known is Unknown with OUTCOME_UNKNOWN: only a retry with the same request id is safe.
package raftnode
