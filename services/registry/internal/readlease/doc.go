// Package readlease lets servers answer default reads without a message for each: the leader under
// its leader lease, followers under follower read leases.
//
// The leader lease is that of Ongaro, "Consensus: Bridging Theory and Practice", 6.4.1. A majority
// that heard from the leader elects nobody else before its heartbeat timeout is over, so the leader
// reads alone until then.
//
// A follower read lease is the quorum lease of Moraru, Andersen and Kaminsky, "Paxos Quorum Leases:
// Fast Reads Without Sacrificing Writes" (SoCC 2014), for the whole state and from one lessor, the
// leader. Until it ends or the holder has given it back, the leader lets no entry into its log. It
// differs from the paper in when a lease is taken back: before a write begins, with one call to
// each holder, and not by the write itself. No entry exists then that a holder could miss. The
// price is paid by the first write after a quiet time, so leases are given only while nothing is
// written (rest). A follower read lease ends within the leader lease, so no other leader can be
// elected before.
//
// Both rely on clocks that advance at a like rate, and on nothing else about clocks. Times are read
// from a Clock, which does not follow the wall clock. margin is by how much rates may differ. Reads
// of mode linearizable rely on neither lease.
//
// Lessor and Holder are safe for concurrent use. Lessor.Pause blocks until holders have answered or
// their leases have ended; nothing else blocks.
package readlease
