// Package forward brings each call to the server that may answer it: the leader of the datacenter,
// or a server of another datacenter through the gateways.
//
// It is one gRPC interceptor (router.go), so that handlers never think about where they run. How
// calls of a method travel is derived from its options (route.go). A call makes at most one hop to
// another datacenter and one to its leader; forwarding metadata marks the hops (hop.go), so that
// servers that disagree cannot send a call in circles (FORWARDING_LOOP). The datacenter of a global
// write is chosen where the call came in. A caller without a token travels as the anonymous one,
// not as the server that passes it on.
//
// # Leaders
//
// While a datacenter elects a leader, calls wait up to leaderWait instead of failing. A call that
// waits for a leader elsewhere ends when another one is known, and is repeated there (flight.go): a
// leader that is paused blocks nobody. A write has an idempotency key, so that repeating it is
// safe; with a key of the caller's own goes a digest of the request (asked.go), by which its reuse
// for something else is refused.
//
// Commands go to the leader in batches (propose.go): what comes while a batch is in flight goes
// with the next one. Reads that wait share one question for the read index, and need none under a
// read lease (package readlease). No commit's size is a caller's to choose: a command of more
// changes or bytes than mostOperations and mostBytes is refused (COMMAND_TOO_LARGE).
//
// # Other datacenters
//
// A call that another datacenter does not answer is tried three times. Once a datacenter has been
// away for two seconds each call is one try, which fails at once while there is no connection, and
// asks the caller to come back in five seconds (away.go, datacenter.go).
//
// Locks of this package are held for map operations, and never while a call is made.
package forward
