package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Group makes a command that only has subcommands: alone it shows its help, with a stray word it
// fails.
func Group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("unknown command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += "; did you mean " + strings.Join(near, " or ") + "?"
		}
		return Usage(cmd, errors.New(text))
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(children...)
	return cmd
}

// Exactly takes n arguments, named for the error.
func Exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return Usage(cmd, fmt.Errorf("%s is missing", strings.Join(names[len(args):], " and ")))
		case len(args) > len(names):
			return Usage(cmd, fmt.Errorf("too many arguments from %q on", args[len(names)]))
		}
		return nil
	}
}

// markStart makes every command say when its command line has been accepted.
func (a *App) markStart(cmd *cobra.Command) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.started = true
		mode := cmd.Flags().Lookup(ReadModeFlag)
		a.stale = mode != nil && mode.Value.String() == staleMode
		return run(cmd, args)
	}
	for _, child := range cmd.Commands() {
		a.markStart(child)
	}
}
