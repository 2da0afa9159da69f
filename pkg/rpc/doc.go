// Package rpc is how konsul's services talk: gRPC over mutual TLS with SPIFFE identities, faults
// instead of bare status codes, one access table per server, and telemetry on every call.
//
// A server refuses what its access table does not list. A client checks which service of which
// datacenter it reached. Everything here is safe for concurrent use.
package rpc
