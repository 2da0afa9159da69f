package main

import (
	"encoding/json"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"konsul.dev/tools/lab/internal/control"
	"konsul.dev/tools/lab/internal/sample"
	"konsul.dev/tools/lab/internal/show"
)

func status() *cobra.Command {
	var dir, output string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the processes of the running lab",
		Example: "  konsul-lab status -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			datacenters, err := control.Call(cmd.Context(), dir, control.Request{Verb: control.VerbStatus})
			if err != nil {
				return err
			}
			switch output {
			case "json":
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(datacenters)
			case "table":
				show.Status(cmd.OutOrStdout(), datacenters)
				return nil
			default:
				return fmt.Errorf("--output is %q: use table or json", output)
			}
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func verbs() []*cobra.Command {
	var cmds []*cobra.Command
	for _, v := range []struct{ verb, short string }{
		{control.VerbStart, "Start a stopped or killed datacenter and wait until it serves"},
		{control.VerbStop, "Stop a datacenter's processes gracefully; its data stays"},
		{control.VerbKill, "Kill a datacenter's processes at once, as a power cut would; its data stays"},
	} {
		var dir string
		cmd := &cobra.Command{
			Use: v.verb + " DATACENTER", Short: v.short,
			Example:   "  konsul-lab " + v.verb + " us-east",
			Args:      cobra.ExactArgs(1),
			ValidArgs: []string{"us-east", "us-west", "eu-central"},
			RunE: func(cmd *cobra.Command, args []string) error {
				datacenters, err := control.Call(cmd.Context(), dir, control.Request{Verb: v.verb, Datacenter: args[0]})
				if err != nil {
					return err
				}
				show.Status(cmd.OutOrStdout(), datacenters)
				return nil
			},
		}
		dirFlag(cmd, &dir)
		cmds = append(cmds, cmd)
	}
	return cmds
}

func sampleService() *cobra.Command {
	var cfg sample.Config
	cmd := &cobra.Command{
		Use:     "sample",
		Short:   "Run the small HTTP service that the lab seeds",
		Example: "  konsul-lab sample --name payment-api --dc us-east --listen 127.0.27.1:9101",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGHUP) // It has nothing to reload, and the lab hangs up on all it started.
			return sample.Run(cmd.Context(), cfg)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.Name, "name", "", "the service's name")
	flags.StringVar(&cfg.Datacenter, "dc", "", "the datacenter it is in")
	flags.StringVar(&cfg.Instance, "instance", "", "tells two processes of one service apart (default: name, datacenter and pid)")
	flags.StringVar(&cfg.Listen, "listen", "", "host:port")
	return cmd
}
