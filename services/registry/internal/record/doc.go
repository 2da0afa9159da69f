// Package record knows what a row of the registry is: its key, its scope, and how rows are read.
//
// Scope is decided here and nowhere else: ScopeOf says of a stored row whether it may leave its
// datacenter, ParseKey says which row a caller means. Everything in this package is a pure function
// or an interface; it may be used from anywhere, concurrently.
package record
