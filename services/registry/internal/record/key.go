package record

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/kvkey"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Prefixes of stored KV keys, one per scope.
const (
	GlobalPrefix = kvkey.GlobalPrefix
	LocalPrefix  = kvkey.LocalPrefix
)

// MaxKeyBytes bounds a key without its scope.
const MaxKeyBytes = 512

// Key is a KV key as a caller means it.
type Key struct {
	// Bare is the key without its scope.
	Bare string
	// Scope is where it lives; unspecified when the caller left it to the registry.
	Scope registryv1.Scope
}

// ParseKey reads a key a caller wrote: in full ("global/x", "local/x") or bare ("x"), with the
// scope the request names. It returns an InvalidArgument fault that names the field and the remedy.
func ParseKey(key string, scope registryv1.Scope) (Key, error) {
	k, err := parse("key", key, scope)
	if err != nil {
		return Key{}, err
	}
	if k.Bare == "" {
		return Key{}, fault.Invalid("key", "is empty").WithRemedy("name a key such as config/app/version")
	}
	return k, nil
}

// ParsePrefix reads a prefix of keys. Unlike a key it may be empty, which means every key.
func ParsePrefix(prefix string, scope registryv1.Scope) (Key, error) {
	return parse("prefix", prefix, scope)
}

func parse(field, key string, scope registryv1.Scope) (Key, error) {
	if _, known := registryv1.Scope_name[int32(scope)]; !known {
		return Key{}, fault.Invalid("scope", "%d is no scope", scope).WithRemedy("use local or global, or leave it out")
	}
	bare, written := kvkey.Split(key)
	if err := check(field, bare); err != nil {
		return Key{}, err
	}
	const unspecified = registryv1.Scope_SCOPE_UNSPECIFIED
	if written != unspecified && scope != unspecified && written != scope {
		return Key{}, fault.Invalid("scope", "contradicts the key, which says %s", name(written)).
			WithRemedy("drop the scope, or the " + name(written) + "/ in front of the key")
	}
	if scope == unspecified {
		scope = written
	}
	return Key{Bare: bare, Scope: scope}, nil
}

func check(field, bare string) error {
	const rule = "use printable UTF-8 of at most 512 bytes that does not begin with a slash"
	switch {
	case len(bare) > MaxKeyBytes:
		return fault.Invalid(field, "is %d bytes long; at most %d are allowed", len(bare), MaxKeyBytes).WithRemedy(rule)
	case !utf8.ValidString(bare):
		return fault.Invalid(field, "is not valid UTF-8").WithRemedy(rule)
	case strings.HasPrefix(bare, "/"):
		return fault.Invalid(field, "begins with a slash").WithRemedy("write config/app, not /config/app")
	case strings.ContainsFunc(bare, unicode.IsControl):
		return fault.Invalid(field, "holds a control character").WithRemedy(rule)
	}
	return nil
}

func name(scope registryv1.Scope) string {
	if scope == registryv1.Scope_SCOPE_GLOBAL {
		return "global"
	}
	return "local"
}

// In returns the stored key of k in a scope, whatever k's own.
func (k Key) In(scope registryv1.Scope) string {
	return kvkey.Join(k.Bare, scope)
}

// Write returns the scope to which a write of k goes: a bare key is local.
func (k Key) Write() registryv1.Scope {
	if k.Scope == registryv1.Scope_SCOPE_GLOBAL {
		return k.Scope
	}
	return registryv1.Scope_SCOPE_LOCAL
}

// Read returns the scopes in which a read of k looks, in order: a datacenter's own value comes
// before the global one.
func (k Key) Read() []registryv1.Scope {
	if k.Scope != registryv1.Scope_SCOPE_UNSPECIFIED {
		return []registryv1.Scope{k.Scope}
	}
	return []registryv1.Scope{registryv1.Scope_SCOPE_LOCAL, registryv1.Scope_SCOPE_GLOBAL}
}

// FromStored takes a stored KV key apart.
func FromStored(key string) Key {
	bare, scope := kvkey.Split(key)
	return Key{Bare: bare, Scope: scope}
}
