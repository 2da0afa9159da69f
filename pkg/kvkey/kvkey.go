// Package kvkey knows how the scope of a key shows in the key: "global/x" belongs to the
// federation, "local/x" to one datacenter, and "x" leaves it open.
//
// The registry stores keys in full and clients may write them so. Everything here is a pure
// function; it may be used concurrently.
package kvkey

import (
	"strings"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Prefixes of keys that are written in full, one per scope.
const (
	GlobalPrefix = "global/"
	LocalPrefix  = "local/"
)

// Split returns a key without the scope in front of it, and that scope; unspecified when there is
// none.
func Split(key string) (bare string, scope registryv1.Scope) {
	if bare, ok := strings.CutPrefix(key, GlobalPrefix); ok {
		return bare, registryv1.Scope_SCOPE_GLOBAL
	}
	if bare, ok := strings.CutPrefix(key, LocalPrefix); ok {
		return bare, registryv1.Scope_SCOPE_LOCAL
	}
	return key, registryv1.Scope_SCOPE_UNSPECIFIED
}

// Join returns a bare key written in full. An unspecified scope is the local one.
func Join(bare string, scope registryv1.Scope) string {
	if scope == registryv1.Scope_SCOPE_GLOBAL {
		return GlobalPrefix + bare
	}
	return LocalPrefix + bare
}
