// Package leading holds what the registry's leader sees to, from the start of its leadership to its
// end: what a new datacenter or a new server begins with, deadlines of the catalogue that pass,
// tokens and leases whose time is over, and the loops that others bring (membership, backups,
// lineage).
//
// Lead returns when its context ends, which is when the leadership does. What it proposes is
// proposed to this server's own Raft node: a leader that is none any more is refused. Many
// deadlines that pass at once are proposed in parts, each command for itself; refused ones are
// tried again.
package leading
