package identity

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"konsul.dev/pkg/fault"
)

const (
	keyLength = 32
	// keyForm begins the text of a component key; a datacenter secret, hex or base64, has no colon.
	keyForm = "konsul-key:v1:"

	componentAgent = "agent"
)

const keyRemedy = "make one with `konsulctl secret derive --component NAME` where the datacenter secret is kept"

// KeyComponents returns the components that hold a key of their own. The registry and the ca are
// not among them: they need the datacenter secret for more than an identity.
func KeyComponents() []string {
	return []string{componentAgent, "failover-router", "gateway", "replicator", "wan-gossip"}
}

// Holder is whose key a component key is.
type Holder struct {
	Component string
	// Node is for agents: the one node whose agent it is; empty: of every node.
	Node string
}

// String returns the holder as people read it, such as "agent web-1".
func (h Holder) String() string { return strings.TrimSpace(h.Component + " " + h.Node) }

// nodeName is what the catalogue takes for a node's name, without the colon, which no SPIFFE id
// has.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$`)

// ValidNode reports whether a node's name can stand in its agent's identity: letters, digits and
// inner dots, underscores and hyphens, at most 128.
func ValidNode(name string) bool { return nodeName.MatchString(name) }

// DeriveKey returns the key by which a component proves who it is, derived from the datacenter
// secret (HKDF-SHA-256, RFC 5869). A node's key is derived from the key of all agents, so that a
// fleet whose nodes come and go can be given one.
func DeriveKey(secret []byte, h Holder) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "konsul component key v1 "+h.Component, keyLength)
	if err != nil {
		return nil, fmt.Errorf("derive key of %s: %w", h, err)
	}
	if h.Node == "" {
		return key, nil
	}
	return nodeKey(key, h.Node)
}

func nodeKey(component []byte, node string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, component, nil, "konsul node key v1 "+node, keyLength)
	if err != nil {
		return nil, fmt.Errorf("derive key of node %s: %w", node, err)
	}
	return key, nil
}

// FormatKey returns the text of a component key, which says whose it is.
func FormatKey(h Holder, key []byte) string {
	name := h.Component
	if h.Node != "" {
		name += "/" + h.Node
	}
	return keyForm + name + ":" + base64.StdEncoding.EncodeToString(key)
}

// Credential is what server.secret_file holds: the datacenter secret, or a key derived from it. It
// has no text form, so that it cannot be logged.
type Credential struct {
	path   string
	secret []byte
	holder Holder
	key    []byte
}

// ReadCredential reads server.secret_file. Its form says which kind it is.
func ReadCredential(path string) (Credential, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Credential{}, fault.Invalid("server.secret_file", "cannot be read: %v", err).WithRemedy(secretRemedy)
	}
	return ParseCredential(path, string(text))
}

// ParseCredential reads the text of a credential; path is for messages.
func ParseCredential(path, text string) (Credential, error) {
	trimmed := strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(trimmed, keyForm); ok {
		return parseKey(path, rest)
	}
	secret, err := hex.DecodeString(trimmed)
	if err != nil {
		secret, err = base64.StdEncoding.DecodeString(trimmed)
	}
	if err != nil {
		return Credential{}, fault.Invalid("server.secret_file", "%q holds neither a datacenter secret (base64 or hex) nor a component key", path).
			WithRemedy(secretRemedy)
	}
	if len(secret) < minSecret {
		return Credential{}, fault.Invalid("server.secret_file", "%q holds %d bytes, fewer than %d", path, len(secret), minSecret).
			WithRemedy(secretRemedy)
	}
	return Credential{path: path, secret: secret}, nil
}

// parseKey reads what follows keyForm.
func parseKey(path, rest string) (Credential, error) {
	name, encoded, _ := strings.Cut(rest, ":")
	component, onNode, hasNode := strings.Cut(name, "/")
	h := Holder{Component: component, Node: onNode}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) != keyLength || !slices.Contains(KeyComponents(), component) ||
		hasNode && (component != componentAgent || !ValidNode(onNode)) {
		return Credential{}, fault.Invalid("server.secret_file", "%q holds a damaged component key", path).WithRemedy(keyRemedy)
	}
	return Credential{path: path, holder: h, key: key}, nil
}

// Secret returns the datacenter secret, for those who need it itself.
func (c Credential) Secret(component string) ([]byte, error) {
	if c.secret == nil {
		return nil, fault.Invalid("server.secret_file", "%q holds the key of %s, and the %s needs the datacenter secret itself",
			c.path, c.holder, component).WithRemedy("name the file of the datacenter secret; only the registry and the ca have it")
	}
	return c.secret, nil
}

// IsSecret reports whether it is the datacenter secret.
func (c Credential) IsSecret() bool { return c.secret != nil }

// Key returns the key that proves to be h: it is in the file, or derived from what is.
func (c Credential) Key(h Holder) ([]byte, error) {
	switch {
	case c.secret != nil:
		return DeriveKey(c.secret, h)
	case c.holder == h:
		return c.key, nil
	case c.holder == Holder{Component: h.Component}:
		return nodeKey(c.key, h.Node)
	default:
		derive := "konsulctl secret derive --component " + h.Component
		if h.Node != "" {
			derive += " --node " + h.Node
		}
		return nil, fault.Invalid("server.secret_file", "%q holds the key of %s, and this process is %s", c.path, c.holder, h).
			WithRemedy("give it its own: `" + derive + "`")
	}
}

// SealingKey returns what a component seals its own files under: the datacenter secret as ever,
// else its key.
func (c Credential) SealingKey() []byte {
	if c.secret != nil {
		return c.secret
	}
	return c.key
}

// ReadSecret reads the datacenter secret for a component that needs it itself: base64 or hex text
// of at least 32 bytes.
func ReadSecret(path, component string) ([]byte, error) {
	c, err := ReadCredential(path)
	if err != nil {
		return nil, err
	}
	return c.Secret(component)
}
