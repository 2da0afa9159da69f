package commandtest

import (
	"context"
	"io"
	"strings"
	"testing"

	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/command"
)

// Interrupted runs konsulctl until it has written lines lines, as somebody would who then
// interrupts it.
func Interrupted(t *testing.T, g *konsultest.Gateway, lines int, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	environ := map[string]string{"KONSUL_ADDR": g.Address, "KONSUL_TOKEN": konsultest.Token, "KONSUL_CA_FILE": g.CAFile}
	out := &counted{left: lines, done: cancel}
	code := command.Run(ctx, cli.Env{
		In: strings.NewReader(""), Out: out, Err: io.Discard,
		Lookup: func(name string) (string, bool) { value, ok := environ[name]; return value, ok },
	}, args)
	return out.text.String(), code
}

type counted struct {
	text strings.Builder
	left int
	done func()
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	if c.left -= strings.Count(string(p), "\n"); c.left <= 0 {
		c.done()
	}
	return c.text.Write(p)
}
