// Package proposals serves what the servers of one datacenter ask their leader: commits, read
// indexes and read leases.
package proposals
