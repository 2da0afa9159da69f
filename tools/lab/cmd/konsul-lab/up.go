package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"konsul.dev/tools/lab/internal/edge"
	"konsul.dev/tools/lab/internal/lab"
	"konsul.dev/tools/lab/internal/plan"
	"konsul.dev/tools/lab/internal/portcheck"
)

const (
	defaultDir     = ".lab"
	defaultNetwork = "127.0.27"
	defaultTimeout = 90 * time.Second
)

// sharedNetwork is how a user asks for one address with shifted ports.
const sharedNetwork = "shared"

func up() *cobra.Command {
	var o struct {
		dir, bin, network, processes, otlp string
		keep                               bool
		timeout                            time.Duration
	}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start us-east, us-west and eu-central and stay in front until Ctrl-C",
		Example: `  konsul-lab up
  konsul-lab up --processes per-service --network 127.0.28 --dir .lab2`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	dirFlag(cmd, &o.dir)
	flags.StringVar(&o.bin, "bin", "", "folder of konsul's programs (default: where konsul-lab is)")
	flags.StringVar(&o.network, "network", defaultNetwork,
		"first three octets of the datacenters' addresses, or \""+sharedNetwork+"\": all on 127.0.0.1 with shifted ports")
	flags.StringVar(&o.processes, "processes", string(plan.Single), "single: one process per datacenter; per-service: one per service")
	flags.StringVar(&o.otlp, "otlp-endpoint", "", "send traces to this OTLP/gRPC collector, host:port, without TLS")
	flags.BoolVar(&o.keep, "keep", false, "leave secrets and data in the folder for the next lab")
	flags.DurationVar(&o.timeout, "timeout", defaultTimeout, "give up when the lab is not ready after this time")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := filepath.Abs(o.dir)
		if err != nil {
			return fmt.Errorf("find --dir: %w", err)
		}
		bin, err := programs(o.bin)
		if err != nil {
			return err
		}
		network := o.network
		if !cmd.Flags().Changed("network") && !portcheck.Bindable(defaultNetwork+".1") {
			fmt.Fprintf(cmd.ErrOrStderr(), "this system has no 127.0.0.0/8: all datacenters use 127.0.0.1, with ports shifted by 10000 each\n")
			network = sharedNetwork
		}
		if network == sharedNetwork {
			network = ""
		}
		layout, err := plan.New(plan.Options{
			Dir: dir, Bin: bin, Network: network, Processes: plan.Processes(o.processes), OTLPEndpoint: o.otlp,
		})
		if err != nil {
			return err
		}
		if err := present(layout); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		return lab.Up(ctx, lab.Options{
			Layout: layout, Keep: o.keep, Timeout: o.timeout, Connect: edge.Connect, Reload: hangups(ctx, cancel, hasTerminal),
			Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr(),
		})
	}
	return cmd
}

// hangups returns the SIGHUPs that ask for a reload. One that came because the terminal has gone
// calls stop instead: the lab stays in front, and nobody is there any more.
func hangups(ctx context.Context, stop func(), inFront func() bool) <-chan os.Signal {
	signals, reload := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	began := inFront()
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case sig := <-signals:
				if began && !inFront() {
					stop()
					return
				}
				select {
				case reload <- sig:
				default: // One is asked for already.
				}
			}
		}
	}()
	return reload
}

// hasTerminal reports whether there is a terminal that this process belongs to.
func hasTerminal() bool {
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = terminal.Close()
	return true
}

func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", defaultDir, "the lab's folder")
}

// programs returns the folder of konsul's programs, absolute.
func programs(bin string) (string, error) {
	if bin == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find konsul-lab's own folder: %w; name it with --bin", err)
		}
		return filepath.Dir(self), nil
	}
	abs, err := filepath.Abs(bin)
	if err != nil {
		return "", fmt.Errorf("find --bin: %w", err)
	}
	return abs, nil
}

// present returns an error naming every program that is not built.
func present(layout plan.Layout) error {
	var errs []error
	for _, spec := range layout.Specs(layout.Primary()) {
		if _, err := os.Stat(spec.Path); err != nil {
			errs = append(errs, fmt.Errorf("program is missing: %w; build it with `make build`", err))
		}
	}
	return errors.Join(errs...)
}
