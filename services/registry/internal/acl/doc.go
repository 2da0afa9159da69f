// Package acl decides whose a bearer token is and what it may do.
//
// A token is known by the SHA-256 of its secret; secrets are high-entropy, so the hash needs no
// salt and no stretching, and are never stored or logged. What a token may do is the sum of the
// rules of its policies, its own and those of its roles: nothing is allowed unless a rule allows
// it, and a rule that denies wins over every rule that allows, however specific either is.
//
// View keeps policies, roles and tokens in memory, fed with committed rows, so that a check asks
// nobody. It hands out Authorizers, which are compiled once and checked without allocating. Both
// are safe for concurrent use. Writer turns requests into commands.
package acl
