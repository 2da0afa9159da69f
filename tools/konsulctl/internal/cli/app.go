// Package cli is what konsulctl's commands share: the flags of all of them, the connection to a
// gateway, what is printed and how errors are told, and the exit codes.
package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/rpc"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Env is the world around a command.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// Lookup returns environment variables.
	Lookup func(name string) (value string, ok bool)
}

// App is one run of konsulctl.
type App struct {
	Env
	addr, tokenFile, caFile string
	Timeout                 time.Duration
	Format                  output.Format
	// requestID is that of the command's write; empty: a new one.
	RequestID string
	// stale says that any server may answer, so that an answer has to tell how old it is.
	stale bool
	// started tells errors of a command from errors of its command line.
	started bool
}

// Call runs what a command does with a client, and closes it.
func (a *App) Call(cmd *cobra.Command, do func(ctx context.Context, api konsul.API) error) (err error) {
	client, err := a.Client(a.Timeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return do(konsul.WithRequestID(cmd.Context(), a.RequestID), client.API())
}

// Client returns a client of the gateways that flags and variables name, whose calls take at most
// timeout. The caller closes it.
func (a *App) Client(timeout time.Duration) (*konsul.Client, error) {
	if timeout <= 0 {
		return nil, fault.Invalid("--timeout", "%s is no time to wait", timeout).WithRemedy("write a duration such as 10s")
	}
	var token string
	if a.tokenFile != "" {
		text, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return nil, fault.Invalid("--token-file", "cannot be read").Wrap(err).WithRemedy("name a file that holds the token alone")
		}
		if token = strings.TrimSpace(string(text)); token == "" {
			return nil, fault.Invalid("--token-file", "%s is empty", a.tokenFile).WithRemedy("name a file that holds the token alone")
		}
	}
	if fromEnv, _ := a.Lookup(konsul.EnvToken); token == "" && strings.TrimSpace(fromEnv) == "" {
		token = rpc.AnonymousToken // What everybody may do is for the registry to say.
	}
	flags := map[string]string{konsul.EnvAddr: a.addr, konsul.EnvToken: token, konsul.EnvCAFile: a.caFile}
	cfg, err := konsul.ConfigFromLookup(func(name string) (string, bool) {
		fromEnv, ok := a.Lookup(name)
		return cmp.Or(flags[name], fromEnv), ok || flags[name] != ""
	})
	if err != nil {
		return nil, inFlagTerms(err, flags)
	}
	cfg.Timeout = timeout
	return konsul.New(cfg)
}

// inFlagTerms names the flag instead of the variable where the flag was given, and as the other way
// out where not.
func inFlagTerms(err error, given map[string]string) error {
	names := map[string]string{konsul.EnvAddr: "--addr", konsul.EnvToken: "--token-file", konsul.EnvCAFile: "--ca-file"}
	var errs []error
	for _, err := range leaves(err) {
		f, ok := fault.As(err)
		if !ok {
			errs = append(errs, err)
			continue
		}
		flag, known := names[f.Field()]
		switch {
		case known && given[f.Field()] != "":
			f = f.WithField(flag)
		case known:
			f = f.WithRemedy("set the variable or " + flag + ": " + f.Remedy())
		}
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// Must is for registrations that only fail when this package is wrong.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}
