package images

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyStaticLinuxProgramsAreTaken(t *testing.T) {
	text := filepath.Join(t.TempDir(), "konsul-ca")
	require.NoError(t, os.WriteFile(text, []byte("#!/bin/sh\n"), 0o700))
	require.ErrorContains(t, checkStatic(text), "no Linux program")
	require.ErrorIs(t, checkStatic(filepath.Join(t.TempDir(), "absent")), os.ErrNotExist)
	if runtime.GOOS != "linux" {
		t.Skip("needs a Linux program")
	}
	require.ErrorContains(t, checkStatic("/bin/sh"), "needs libraries")
}

func TestEveryMissingProgramIsNamed(t *testing.T) {
	err := Build(t.Context(), Options{Bin: t.TempDir()})
	for _, image := range All() {
		require.ErrorContains(t, err, image.Program)
	}
}
