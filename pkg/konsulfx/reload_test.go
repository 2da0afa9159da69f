package konsulfx

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"konsul.dev/pkg/identity"
)

// hungUp is a service that changes its process's configuration file, hangs up on it once it runs,
// and ends it when it has been reloaded.
type hungUp struct {
	t       *testing.T
	change  func()
	failure error
}

func (h *hungUp) Start(context.Context) error {
	h.change()
	return syscall.Kill(os.Getpid(), syscall.SIGHUP) // While it starts, as early as any.
}

func (h *hungUp) Reload(context.Context) ([]string, error) {
	require.NoError(h.t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	return []string{"definitions"}, h.failure
}

func (h *hungUp) Stop(context.Context) error  { return nil }
func (h *hungUp) Ready(context.Context) error { return nil }
func (h *hungUp) Identity() identity.Source   { return nil }

func TestSIGHUPReloadsWhatCanBeAndSaysWhatCannot(t *testing.T) {
	for name, c := range map[string]struct {
		before, after string
		failure       error
		reloaded      []any
		restart       []any
		says          string
	}{
		"nothing changed": {"log_level: info", "log_level: info", nil, []any{"definitions"}, []any{}, ""},
		"log level":       {"log_level: info", "log_level: debug", nil, []any{"telemetry.log_level", "definitions"}, []any{}, ""},
		"another setting": {"log_level: info", "log_level: info, otlp_endpoint: 127.0.0.1:1", nil, []any{"definitions"}, []any{"telemetry.otlp_endpoint"}, ""},
		"wrong now":       {"log_level: info", "log_level: loud", nil, []any{"definitions"}, []any{}, "unknown level"},
		"not readable":    {"log_level: info", "log_level: [", nil, []any{"definitions"}, []any{}, "not everything could be reloaded"},
		"a service fails": {"log_level: info", "log_level: info", errors.New("folder is gone"), []any{"definitions"}, []any{}, "folder is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "konsul.yaml")
			write := func(text string) func() {
				return func() { require.NoError(t, os.WriteFile(file, []byte("telemetry: {"+text+"}\n"), 0o600)) }
			}
			write(c.before)()
			module := func(testConfig) fx.Option {
				return Module("test", func(Process) (Service, error) {
					return &hungUp{t: t, change: write(c.after), failure: c.failure}, nil
				})
			}
			code, _, stderr := call(t, module, append(valid(t), "--config", file)...)
			require.Equal(t, exitOK, code, stderr)
			require.Contains(t, stderr, c.says)
			line := lineOf(t, stderr, "SIGHUP: reloaded")
			require.Equal(t, c.reloaded, line["reloaded"])
			require.Equal(t, c.restart, line["needs_restart"])
		})
	}
}

// lineOf returns the attributes of the log line whose message begins so.
func lineOf(t *testing.T, log, message string) map[string]any {
	t.Helper()
	for line := range strings.Lines(log) {
		var attributes map[string]any
		if json.Unmarshal([]byte(line), &attributes) != nil {
			continue
		}
		if text, _ := attributes["msg"].(string); strings.HasPrefix(text, message) {
			return attributes
		}
	}
	require.Fail(t, "no such line", "%s in %s", message, log)
	return nil
}
