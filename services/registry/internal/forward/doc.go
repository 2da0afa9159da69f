// Package forward brings each call to the server that may answer it: the leader of the datacenter,
// or a server of another datacenter through the gateways.
//
// It is one gRPC interceptor driven by a table of routes, so that handlers never think about where
// they run. A call makes at most one hop to another datacenter and one to its leader; metadata
// marks the hops, so that servers that disagree cannot send a call in circles. While a datacenter
// elects a leader, calls wait a little instead of failing. A write that goes over the network
// carries a request id, so that repeating it is safe.
package forward
