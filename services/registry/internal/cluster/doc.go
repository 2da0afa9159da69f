// Package cluster brings a server into its datacenter's cluster and keeps the membership.
//
// # Founding and joining
//
// A server without Raft state greets every address it was told of (Run, enter). A cluster is
// founded only when all of them answer, none has state, they are as many as expected, and all have
// met the same ones; the first in the order of ids founds it (member.Meet). Whoever meets a server
// with state joins its cluster instead. So two clusters cannot come of one list, and a server that
// is late or came back empty never makes a second one. The price: all listed servers must run once,
// at the first start.
//
// A server without state is silent to Raft (raftnode.Node.Open) until everybody is fresh, or the
// leader has made it a member without a vote. A server that lost its disk may have acknowledged
// what its peers lack, and with a vote it could elect them all the same. The leader first removes
// the id that it had, which costs no majority, as it leads without that server already.
//
// # Addresses
//
// Every server keeps its row (address, versions, disk) up to date through the leader. A new Raft
// address in a row is a change of the Raft configuration. A server that moved says so with each
// greeting (Directory), so that its peers reach it before there is a leader to record it: a
// majority may move at once. It is believed only if nobody with that disk answers at its old
// address: a copy of a disk must not vote in the original's name.
//
// # The leader's part
//
// Join, Announce, Add, Remove and Transfer; each is safe to repeat. Autopilot (raftnode) asks every
// member once a second, gives a vote to who has been healthy for a while, and removes who is dead,
// never below the least quorum and never half of the voters. A server that autopilot removed may
// come back by itself, one that an operator removed with an empty disk or by Add.
//
// All methods are safe for concurrent use. Cluster.change is held during one change of the
// membership, calls to other servers included; Cluster.mu and Directory.mu are held for moments.
// None of them is taken by the goroutine that applies.
package cluster
