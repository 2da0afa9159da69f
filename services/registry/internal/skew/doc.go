// Package skew measures how far the clocks of other servers and datacenters are from this server's.
//
// A peer says its time in an ordinary answer; compared with the middle of the round trip, that is
// off by at most half of it (D. Mills, RFC 5905). Nothing is decided by what is measured: it is
// told, since certificates, tokens and lag are judged by these clocks. Safe for concurrent use.
package skew
