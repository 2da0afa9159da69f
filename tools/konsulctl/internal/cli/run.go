package cli

import (
	"context"

	"github.com/spf13/cobra"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Run carries out one command line with the commands that build returns, and returns its exit
// code. It ends early when ctx does.
func Run(ctx context.Context, env Env, args []string, build func(*App) *cobra.Command) int {
	a := &App{Env: env, Format: output.Table}
	root := build(a)
	a.markStart(root)
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if _, ok := fault.As(err); !ok && !a.started {
		// From cobra itself, which knows no remedy.
		err = badFlags(cmd, err)
	}
	if !a.started {
		a.Format.Find(args) // The flag that says so may stand behind the one that was refused.
	}
	err = asTyped(cmd, err)
	a.report(err)
	return exitCode(err)
}

// RootFlags adds the flags that every command has.
func (a *App) RootFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&a.addr, "addr", "", "gateways to ask, https://host:8500 (default $"+konsul.EnvAddr+")")
	flags.StringVar(&a.tokenFile, "token-file", "", "file with the bearer token (default: the token in $"+konsul.EnvToken+")")
	flags.StringVar(&a.caFile, "ca-file", "", "PEM file with the federation's roots (default $"+konsul.EnvCAFile+")")
	flags.DurationVar(&a.Timeout, "timeout", konsul.DefaultTimeout, "how long a call may take, its retries included")
	flags.VarP(&a.Format, "output", "o", "table, json or yaml")
	Must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Formats(), cobra.ShellCompDirectiveNoFileComp)))
	root.SetFlagErrorFunc(badFlag)
}
