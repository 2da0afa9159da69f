package konsulfx

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/ops"
)

type testConfig struct {
	config.Base `koanf:",squash"`
}

func defaults() testConfig { return testConfig{Base: config.DefaultBase()} }

func call(t *testing.T, module func(testConfig) fx.Option, args ...string) (code int, out, err string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run[testConfig, *testConfig]("konsul-test", args, defaults, module, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func valid(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	return []string{"--set", "server.datacenter=us-east", "--set", "server.secret_file=s", "--set", "server.data_dir=" + dir}
}

func TestCheckConfigRunsNothing(t *testing.T) {
	code, out, _ := call(t, func(testConfig) fx.Option { panic("must not run") }, append(valid(t), "--check-config")...)
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "valid")
}

func TestBadConfigurationNamesFieldAndRemedy(t *testing.T) {
	code, _, stderr := call(t, nil, "--set", "server.datacenter=US_EAST", "--set", "server.datacentre=x")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "server.datacentre")
	require.Contains(t, stderr, "remedy:")
}

func TestAStartThatFailsSaysWhyAndExitsNonZero(t *testing.T) {
	module := func(testConfig) fx.Option {
		return fx.Invoke(func(lc fx.Lifecycle) {
			lc.Append(fx.StartHook(func() error {
				return fault.New(fault.FailedPrecondition, "JOIN_TOKEN_EXPIRED", "token expired").WithField("ca.join_token_file").WithRemedy("make a new one")
			}))
		})
	}
	code, _, stderr := call(t, module, valid(t)...)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "ca.join_token_file: token expired")
	require.Contains(t, stderr, "remedy: make a new one")
}

func TestHealthAsksTheRunningProcess(t *testing.T) {
	args := valid(t)
	broken := errors.New("no leader")
	module := func(cfg testConfig) fx.Option {
		return fx.Invoke(func(lc fx.Lifecycle, server *ops.Server, stop fx.Shutdowner) {
			server.Add("test", func(context.Context) error { return broken })
			lc.Append(fx.StartHook(func() {
				go func() {
					defer func() { _ = stop.Shutdown() }()
					code, _, stderr := call(t, nil, append([]string{"health"}, args...)...)
					if code != exitFailed || !bytes.Contains([]byte(stderr), []byte("no leader")) {
						t.Errorf("unready: exit %d, %s", code, stderr)
					}
					broken = nil
					if code, _, stderr = call(t, nil, append([]string{"health"}, args...)...); code != exitOK {
						t.Errorf("ready: exit %d, %s", code, stderr)
					}
				}()
			}))
		})
	}
	code, _, stderr := call(t, module, args...)
	require.Equal(t, exitOK, code, stderr)
}

func TestHealthOfNobodyFails(t *testing.T) {
	code, _, stderr := call(t, nil, "health", "--set", "server.datacenter=a", "--set", "server.secret_file=s", "--set", "server.data_dir="+filepath.Join(t.TempDir(), "x"))
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "konsul-test")
}

func TestACommandOfTheServiceRunsInsteadOfIt(t *testing.T) {
	var dry bool
	commands := []Command[testConfig]{{
		Word: "recover", Help: "make it whole again",
		Flags: func(flags *flag.FlagSet) { flags.BoolVar(&dry, "dry-run", false, "only say it") },
		Run: func(_ context.Context, cfg testConfig, out io.Writer) error {
			_, err := fmt.Fprintln(out, "recovered", cfg.Server.Datacenter, dry)
			return err
		},
	}}
	none := func(testConfig) fx.Option { panic("must not run") }
	var stdout, stderr bytes.Buffer
	code := run[testConfig, *testConfig]("konsul-test", append([]string{"recover", "--dry-run"}, valid(t)...), defaults, none, &stdout, &stderr, commands...)
	require.Zero(t, code, stderr.String())
	require.Contains(t, stdout.String(), "recovered us-east true")
	stderr.Reset()
	require.Equal(t, 2, run[testConfig, *testConfig]("konsul-test", []string{"--dry-run"}, defaults, none, &stdout, &stderr, commands...), "the flag is the command's alone")
	require.Contains(t, stderr.String(), "make it whole again")
}
