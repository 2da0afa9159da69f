// Package konsul is the Go client of a Konsul federation.
//
// A Client talks gRPC over TLS to the gateway of one datacenter, which answers for its own
// datacenter and, when asked, for the others. A Client and everything on it is safe for concurrent
// use; make one and keep it.
//
// Errors are faults (package konsul.dev/pkg/fault): fault.CodeOf says what class, fault.ReasonOf
// which stable reason, and the text names the field at fault. Calls that were certainly not carried
// out, and calls that may safely be repeated, are retried for a short while; every write carries a
// request id, so that a repeated one is applied once.
//
// Key-value calls made at the same time share a call to the gateway: what is called while others
// are out goes together when they are back. Each keeps its own context and its own error.
package konsul
