// Package acl decides whose a bearer token is and what it may do.
//
// A token is known by the SHA-256 of its secret; secrets are high-entropy, so the hash needs no salt
// and no stretching, and are never stored or logged. View keeps the tokens in memory, fed with
// committed rows, so that a check asks nobody. It is safe for concurrent use.
package acl
