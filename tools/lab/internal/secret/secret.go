// Package secret makes a lab's secrets and writes them down for shells. It keeps no state.
package secret

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"konsul.dev/pkg/identity"
)

// bytes is the entropy of a datacenter secret and of the management token.
const bytes = 32

// New returns a fresh secret as a line of text.
func New() string {
	secret := make([]byte, bytes)
	// It never fails: crypto/rand ends the process instead.
	_, _ = rand.Read(secret)
	return hex.EncodeToString(secret) + "\n"
}

// Key returns the key of a component, derived from the text of its datacenter's secret, as a line
// of text.
func Key(secret string, h identity.Holder) (string, error) {
	credential, err := identity.ParseCredential("secret", secret)
	if err != nil {
		return "", err
	}
	key, err := credential.Key(h)
	if err != nil {
		return "", err
	}
	return identity.FormatKey(h, key) + "\n", nil
}

// Env returns the settings of konsulctl and the SDK as a shell reads them with `. FILE`.
func Env(url, token, rootsFile string) string {
	return fmt.Sprintf("export KONSUL_ADDR=%s\nexport KONSUL_TOKEN=%s\nexport KONSUL_CA_FILE=%s\n",
		url, strings.TrimSpace(token), quote(rootsFile))
}

// quote makes a path one word for a shell, and leaves it alone where it is one already.
func quote(path string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,:@%="
	if strings.Trim(path, plain) == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
