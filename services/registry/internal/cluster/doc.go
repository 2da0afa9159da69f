// Package cluster brings a server into its datacenter's cluster and keeps the membership.
//
// A server without state asks the ones it was told of who they are. Together they found a cluster,
// once; or it joins the one that exists, without a vote, and autopilot gives it one when it has
// been healthy for a while. Until it is known that its vote can lose nothing it does not answer
// Raft at all: a server that lost its disk must not elect a leader that lacks what it had
// acknowledged.
//
// Every server keeps its row (address, versions, disk) up to date through the leader. The leader's
// part is Join, Announce, Add, Remove and Transfer; each is safe to repeat. All methods are safe
// for concurrent use.
package cluster
