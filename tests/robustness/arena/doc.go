// Package arena runs the servers of one registry as processes of their own, each on a host of its
// own: a network namespace at a bridge and a disk in memory, so that the wire between two of them
// can be cut in one direction and a disk can be full. Everything lies in namespaces that the test
// binary makes when it executes itself again (Main), so nothing outlives it, however it ends.
//
// Servers are the test binary too, with registry.New as the shipped program has it, but for the
// certificates, which need no ca. A Cluster's methods may be called by one goroutine; Clients by
// any.
package arena
