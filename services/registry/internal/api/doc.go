// Package api is the registry's gRPC face: each handler checks, converts, asks the core and converts
// back. It decides nothing: who may call and what it takes is in the contracts, where a call runs is
// package forward, what is returned is the core.
package api
