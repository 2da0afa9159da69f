// Package contracttest is what other services rely on of a datacenter's registry, as tests over
// a connection. The registry passes them, and so does each fake that stands for it in another
// service's tests, so that a fake cannot promise what the registry does not keep.
//
// Each function is the contract of one kind of caller. It belongs to one test at a time.
package contracttest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
)

// patience bounds a test of the contract.
const patience = 20 * time.Second

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func refused(t *testing.T, code fault.Code, reason string, err error) {
	t.Helper()
	require.Equal(t, code, fault.CodeOf(err), "%v", err)
	require.Equal(t, reason, fault.ReasonOf(err), "%v", err)
}
