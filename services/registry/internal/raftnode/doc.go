// Package raftnode runs one server of a datacenter's Raft cluster over the registry's store.
//
// It adapts the state machine and the store to hashicorp/raft, proposes commands, and says whether
// this server may answer reads for the cluster. It changes the membership, looks after it while it
// leads (autopilot), and recovers a cluster that lost its quorum, offline. A server without Raft
// state is silent to peers until Open. All methods of a started Node are safe for concurrent use.
//
// A write that was refused before it entered the log is Unavailable and safe to retry. One whose
// fate is not known is Unknown with OUTCOME_UNKNOWN: only a retry with the same request id is safe.
//
// # The life of an entry
//
//  1. ProposeAll queues proposals. What comes while an entry is in flight shares the next one
//     (group commit, propose.go), unless it reads or writes what another of them writes.
//  2. commit takes the read leases of followers back (readlease.Lessor.Pause), stamps the entry
//     with time and epoch, and gives it to the library's Apply.
//  3. The library's main loop hands it to logStore.StoreLogs. The parallel leader write sends it to
//     the followers, then it goes to the own WAL with fsync (parallelwrite.go, space.go).
//  4. A follower's main loop writes it to its WAL and answers.
//  5. The library commits it once a majority has it on disk, and calls machine.ApplyBatch.
//  6. machine runs the commands against a batch of the store. Batch.Commit makes the rows visible
//     to readers of the store, Sink.Committed to those of everything else, and then the writers
//     get their outcomes.
//  7. Followers learn the commit index with the next entry, or 2 ms later from the commit-index
//     broadcast, and apply the entry likewise.
//
// # Leadership
//
// A leader whose process died is replaced in about 0.9 s: a follower notices after one to two
// heartbeat timeouts, and a majority must. Pre-vote keeps one paused follower from disturbing the
// rest. A server that stops hands its leadership over first (HandOver). A new leader serves reads
// for the cluster once it has applied all of earlier terms (settle). Timings are for a LAN.
//
// # Snapshots and the log
//
// A snapshot is a full stream of the state, so that it can be sent to a server that lags behind the
// log. It flushes the store first; the log is truncated behind snapshots only, so it reaches back
// to the last flush. The library counts entries whatever their size; space.go takes snapshots by
// bytes as well. At start a snapshot is restored only if the store lacks commands that the snapshot
// has and the log has not (mustRestore). A snapshot from before the applied index is not restored:
// readers would go back in time (machine.pass). One that comes in is received by the library's main
// loop, which cannot vote meanwhile; five seconds without a byte end its connections (incoming.go).
//
// # Recovery
//
// Recovery makes one stopped server the only voter. It reads every row and every entry and checks
// the snapshot's checksum first, counts the log as committed, and raises the generation in
// server.json. A server that comes back with data of an older generation learns of it from those it
// greets before it takes part in Raft, and stops. Two of those that cannot reach the recovered
// server would be a majority of the old cluster: their disks must be wiped, as the runbook says.
//
// # Who may block whom
//
// The apply goroutine, which runs machine, waits for nobody but the store: a flush that is behind
// makes it wait for the disk. Sink must not block. Nothing that holds a lock that Sink or the store
// takes may wait for an entry. The library's main loop is blocked by the WAL's fsync and by a
// snapshot that comes in (incoming.go). Heartbeats bypass the main loop on both sides.
//
// # Lock order
//
// readlease.Lessor's two locks come first, and are never held while a lock of this package is
// taken. parallelWriter.mu, commits.mu, machine.mu, streams.mu and flight.mu are leaves: nothing is
// called under them that takes another lock of this package or waits for a message.
//
// # What is assumed of the library
//
// library_test.go pins the parallel leader write, the commit-index broadcast and VerifyLeader
// against the library itself, logstore_test.go the WAL repair: a new version that behaves otherwise
// fails them. The decision to stay with it is docs/decisions/0015.
package raftnode
