// Package secret makes a lab's secrets and writes them down for shells. It keeps no state.
package secret

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// bytes is the entropy of a datacenter secret and of the management token.
const bytes = 32

// New answers a fresh secret as a line of text.
func New() string {
	secret := make([]byte, bytes)
	// It never fails: crypto/rand ends the process instead.
	_, _ = rand.Read(secret)
	return hex.EncodeToString(secret) + "\n"
}

// Env answers the settings of konsulctl and the SDK as a shell reads them with `. FILE`.
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
