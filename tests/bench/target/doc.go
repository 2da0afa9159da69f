// Package target runs what the benchmarks measure, each server as a process of its own on loopback:
// clusters of our registry and of etcd, and a gRPC server that answers from a constant, the limit
// of what any server could reach here.
//
// Registry servers and the limit are this program executed again with another command (Serve,
// ServeLimit). They end when their standard input does, so nothing outlives the benchmark.
package target
