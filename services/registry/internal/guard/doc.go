// Package guard decides what a caller's token allows. The permissions that a method takes are those
// that its contract declares; the few that depend on the state are functions that the front door
// registers by the names the contracts use.
//
// The door (pkg/rpc) has decided whose the token is. A call is checked on every server it passes.
// Handlers ask for what a request alone does not tell, with the Authorizer in the context: lists
// leave out rows, batches ask for each operation. A Guard is safe for concurrent use.
package guard
