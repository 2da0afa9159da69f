// Package rpc is how konsul's services talk: gRPC over mutual TLS with SPIFFE identities, faults
// instead of bare status codes, access by what the contracts say, and telemetry on every call.
//
// A server refuses what its contracts do not open to the caller. A client checks which service of
// which datacenter it reached. Everything here is safe for concurrent use.
package rpc
