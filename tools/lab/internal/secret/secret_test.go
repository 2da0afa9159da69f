package secret_test

import (
	"encoding/hex"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/lab/internal/secret"
)

func TestSecretsAreLongAndDiffer(t *testing.T) {
	one, two := secret.New(), secret.New()
	require.NotEqual(t, one, two)
	raw, err := hex.DecodeString(strings.TrimSpace(one))
	require.NoError(t, err)
	require.Len(t, raw, 32)
}

func TestAShellReadsWhatWasWritten(t *testing.T) {
	for _, path := range []string{"/lab/roots.pem", "/my lab/it's $HOME/roots.pem"} {
		script := secret.Env("https://127.0.27.1:8500", "abc-_\n", path) + `sh -c 'printf "%s|%s|%s" "$KONSUL_ADDR" "$KONSUL_TOKEN" "$KONSUL_CA_FILE"'`
		out, err := exec.CommandContext(t.Context(), "sh", "-c", script).Output()
		require.NoError(t, err)
		require.Equal(t, "https://127.0.27.1:8500|abc-_|"+path, string(out))
	}
}
