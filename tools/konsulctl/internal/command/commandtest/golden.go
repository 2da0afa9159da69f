package commandtest

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/konsul/konsultest"
)

var update = flag.Bool("update", false, "write what konsulctl says to testdata") //nolint:gochecknoglobals // a flag of the test binary

// Says compares what konsulctl says in every format with a file in a folder.
func Says(t *testing.T, gateway *konsultest.Gateway, folder, name, line string) {
	t.Helper()
	var said strings.Builder
	for _, format := range []string{"table", "json", "yaml"} {
		r := Ctl(t, gateway, "", append(AsArguments(line), "-o", format)...)
		fmt.Fprintf(&said, "$ konsulctl %s -o %s\n%s", line, format, r.Stdout)
		if r.Stderr != "" {
			fmt.Fprintf(&said, "--- stderr\n%s", r.Stderr)
		}
		fmt.Fprintf(&said, "--- exit %d\n\n", r.Code)
		if format == "json" {
			require.True(t, r.Stdout == "" && r.Code != 0 || json.Valid([]byte(r.Stdout)), "%s: no JSON: %s", line, r.Stdout)
			for note := range strings.Lines(r.Stderr) {
				require.True(t, json.Valid([]byte(note)), "%s: no JSON: %s", line, note)
			}
		}
		if strings.HasPrefix(name, "error") {
			break
		}
	}
	path := filepath.Join(folder, name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(said.String()), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), said.String())
}

// AsArguments takes a line apart; in a rule a dot stands for a space.
func AsArguments(line string) []string {
	args := strings.Fields(line)
	for i := 1; i < len(args); i++ {
		if args[i-1] == "--rule" {
			args[i] = strings.ReplaceAll(args[i], ".", " ")
		}
	}
	return args
}

// Golden compares what konsulctl says to each line with the file of its name in testdata.
func Golden(t *testing.T, lines map[string]string) {
	t.Helper()
	gateway := Federation(t)
	for name, line := range lines {
		t.Run(name, func(t *testing.T) { Says(t, gateway, "testdata", name, line) })
	}
}
