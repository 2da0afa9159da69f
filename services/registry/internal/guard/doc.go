// Package guard decides what a caller's token allows. The permissions that a method takes are those
// that its contract declares; the few that depend on the state are functions that the front door
// registers by the names the contracts use.
package guard
