// Package identity is who a service is and how it proves it: SPIFFE ids, certificates that rotate
// under running listeners, and the rules by which a peer's certificate is believed.
//
// A peer is believed when its chain ends in the federation's roots and its leaf names the same
// datacenter as the intermediate that signed it, so that a stolen intermediate speaks for one
// datacenter only. Host names are never used between services. TLS 1.3 only. Everything here is
// safe for concurrent use.
package identity
