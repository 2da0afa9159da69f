// Package bench measures the registry beside etcd and beside the limit of what any gRPC server
// could do, in one run on one machine, and compares the ratios with what was promised: absolute
// times on shared machines mean little. Command konsul-bench runs it; docs/performance.md says how
// and what came out.
package bench
