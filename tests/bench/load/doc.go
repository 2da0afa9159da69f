// Package load is the load generator of the benchmarks: a process of its own that drives one target
// with many clients, calls round robin over its servers, and measures rate, latency and the
// servers' use of processor and memory meanwhile.
//
// Every target is driven the same way: generated gRPC clients on one connection for each server,
// which all clients share. The clients' own cost is the same for all, so ratios show the servers.
package load
