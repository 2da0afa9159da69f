// Command konsul-lab runs a three-datacenter federation on this machine, for trying and for tests.
//
// `konsul-lab up` stays in front until Ctrl-C; the other commands speak to it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// A second signal ends the lab at once, and the kernel its children.
	context.AfterFunc(ctx, stop)
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "konsul-lab: %v\n", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "konsul-lab",
		Short:         "Run a three-datacenter federation on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	cmd.AddCommand(up(), status(), sampleService(), composeLab(), buildImages())
	cmd.AddCommand(verbs()...)
	return cmd
}
