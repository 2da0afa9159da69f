// Package checks finds out how the services of this node are doing.
//
// An HTTP check passes with a status of 200 to 299, warns with 429 and is critical otherwise; a TCP
// check passes when a connection opens; a TTL check is as good as its last report, and critical
// when none came for its TTL. Every check has a loop of its own, spread by jitter, so that a
// hanging one delays no other; how many probes run at once is bounded.
package checks
