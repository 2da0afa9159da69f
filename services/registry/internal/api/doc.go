// Package api is the registry's gRPC face: each handler checks, converts, asks the core and converts
// back. It decides nothing: who may call is the access table, where a call runs is package forward,
// what is answered is the core.
package api
