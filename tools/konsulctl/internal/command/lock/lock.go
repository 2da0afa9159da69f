// Package lock has konsulctl's commands for locks, and one that runs a program under a lock.
package lock

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the lock command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "lock", Short: "Take locks and run commands under them",
		Long: `Take locks and run commands under them.

A lock is held by one lease at a time. Every acquisition has a token that is higher than all before it: give
it to what the lock protects, which can then refuse a holder that is late.`,
		Example: "  konsulctl lock run jobs/nightly -- ./nightly.sh\n  konsulctl lock list jobs/",
	}, run(a), acquire(a), release(a), get(a), list(a))
}

func acquire(a *cli.App) *cobra.Command {
	var datacenter, lease, holder string
	var wait, delay time.Duration
	cmd := &cobra.Command{
		Use: "acquire NAME", Short: "Take a lock with a lease",
		Long: `Take a lock for a lease that is there already. With --wait it waits for the lock; one that another lease has
still is exit code 6. JSON is that of POST /api/v1/lock-acquire/NAME.`,
		Example: "  konsulctl lock acquire jobs/nightly --lease 7a1c0a5e --wait 1m",
		Args:    cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &registryv1.AcquireLockRequest{Name: args[0], Lease: lease, Holder: holder, Datacenter: cli.Named(datacenter)}
			if wait > 0 {
				request.Wait = durationpb.New(wait)
			}
			if cmd.Flags().Changed("delay") {
				request.Delay = durationpb.New(delay)
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Locks.Acquire(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("acquired %s in %s with token %d", answer.GetLock().GetName(), answer.GetMeta().GetDatacenter(), answer.GetLock().GetToken())
				})
			})
		},
	}
	cmd.Flags().StringVar(&lease, "lease", "", "lease to hold it with")
	cli.Must(cmd.MarkFlagRequired("lease"))
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait for it")
	cmd.Flags().DurationVar(&delay, "delay", 0, "how long to keep others out when it is lost (default: the registry's setting)")
	cmd.Flags().StringVar(&holder, "holder", "", "what to tell others of its holder")
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the lock (default: the gateway's)")
	return cmd
}

func release(a *cli.App) *cobra.Command {
	var datacenter string
	var token uint64
	cmd := &cobra.Command{
		Use: "release NAME", Short: "Give a lock back", Example: "  konsulctl lock release jobs/nightly --token 1042",
		Args: cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Locks.Release(ctx, &registryv1.ReleaseLockRequest{Name: args[0], Token: token, Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { g.Line("released %s in %s", args[0], answer.GetMeta().GetDatacenter()) })
			})
		},
	}
	cmd.Flags().Uint64Var(&token, "token", 0, "token that acquiring it answered")
	cli.Must(cmd.MarkFlagRequired("token"))
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the lock (default: the gateway's)")
	a.RequestIDFlag(cmd)
	return cmd
}

func get(a *cli.App) *cobra.Command {
	var datacenter string
	var mode cli.ReadMode
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show who holds a lock", Example: "  konsulctl lock get jobs/nightly",
		Args: cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Locks.Get(ctx, &registryv1.GetLockRequest{Name: args[0], Datacenter: cli.Named(datacenter), ReadMode: mode.Mode})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					l := answer.GetLock()
					g.Row("Name", l.GetName())
					g.Row("Lease", l.GetLease())
					g.Row("Holder", l.GetHolder())
					g.Row("Token", fmt.Sprint(l.GetToken()))
					g.Row("Acquired", output.Time(l.GetAcquiredAt()))
					g.Row("Delay", l.GetDelay().AsDuration().String())
					if l.GetLease() == "" {
						g.Row("Free at", output.Time(l.GetFreeAt()))
					}
				})
			})
		},
	}
	mode.Add(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func list(a *cli.App) *cobra.Command {
	var datacenter string
	var mode cli.ReadMode
	cmd := &cobra.Command{
		Use: "list [PREFIX]", Short: "List locks", Example: "  konsulctl lock list jobs/",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &registryv1.ListLocksRequest{Datacenter: cli.Named(datacenter), ReadMode: mode.Mode}
			if len(args) > 0 {
				request.Prefix = args[0]
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Locks.List(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("NAME", "TOKEN", "LEASE", "HOLDER", "ACQUIRED")
					for _, l := range answer.GetLocks() {
						lease := l.GetLease()
						if lease == "" {
							lease = "(lost)"
						}
						g.Row(l.GetName(), fmt.Sprint(l.GetToken()), lease, l.GetHolder(), output.Time(l.GetAcquiredAt()))
					}
				})
			})
		},
	}
	mode.Add(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}
