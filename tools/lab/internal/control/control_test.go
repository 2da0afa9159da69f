package control_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/lab/internal/control"
)

func TestARequestReachesTheLab(t *testing.T) {
	// Deeper than a unix socket path may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep", 40))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan control.Request, 2)
	wait, err := control.Serve(ctx, dir, func(_ context.Context, r control.Request) ([]control.Datacenter, error) {
		asked <- r
		if r.Verb == control.VerbKill {
			return nil, errors.New("no datacenter \"mars\"")
		}
		return []control.Datacenter{{Name: "us-east", Primary: true}}, nil
	})
	require.NoError(t, err)

	got, err := control.Call(t.Context(), dir, control.Request{Verb: control.VerbStatus})
	require.NoError(t, err)
	require.Equal(t, []control.Datacenter{{Name: "us-east", Primary: true}}, got)
	require.Equal(t, control.Request{Verb: control.VerbStatus}, <-asked)

	_, err = control.Call(t.Context(), dir, control.Request{Verb: control.VerbKill, Datacenter: "mars"})
	require.ErrorContains(t, err, "mars")

	cancel()
	require.NoError(t, wait())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestWithoutALabTheErrorSaysWhatToDo(t *testing.T) {
	_, err := control.Call(t.Context(), t.TempDir(), control.Request{Verb: control.VerbStatus})
	require.ErrorContains(t, err, "konsul-lab up")
}

func TestADeadLabIsRecognised(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "control"), []byte(filepath.Join(dir, "gone")+"\n"), 0o600))
	_, err := control.Call(t.Context(), dir, control.Request{Verb: control.VerbStatus})
	require.ErrorContains(t, err, "does not answer")
}

func TestACallEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	serving, stop := context.WithCancel(t.Context())
	asked := make(chan struct{})
	wait, err := control.Serve(serving, dir, func(ctx context.Context, _ control.Request) ([]control.Datacenter, error) {
		close(asked)
		<-ctx.Done()
		return nil, nil
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, err = control.Call(ctx, dir, control.Request{Verb: control.VerbStop})
	require.ErrorIs(t, err, context.Canceled)
	stop()
	require.NoError(t, wait())
}
