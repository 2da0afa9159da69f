// Package lease has konsulctl's commands for leases.
package lease

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the lease command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "lease", Short: "Grant leases and keep them alive",
		Long: `Grant leases and keep them alive.

A lease ends when nobody keeps it alive for its time to live, and with it the keys that were written with
it and the locks that it holds. It belongs to one datacenter.`,
		Example: "  konsulctl lease grant 30s\n  konsulctl lease keep-alive 7a1c0a5e",
	}, grant(a), keepAlive(a), revoke(a), get(a), list(a))
}

func grant(a *cli.App) *cobra.Command {
	var datacenter, id, name string
	cmd := &cobra.Command{
		Use: "grant TTL", Short: "Make a lease",
		Long: `Make a lease that ends unless it is kept alive within TTL. --name is a local key: a token that may write
it may use the lease. JSON is that of POST /api/v1/lease.`,
		Example: "  konsulctl lease grant 30s\n  konsulctl lease grant 10m --id web-1 --name presence/web-1",
		Args:    cli.Exactly("TTL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ttl, err := time.ParseDuration(args[0])
			if err != nil {
				return fault.Invalid("TTL", "%q is no duration", args[0]).WithRemedy("write one such as 30s")
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Leases.Grant(ctx, &registryv1.GrantLeaseRequest{Id: id, Name: name, Ttl: durationpb.New(ttl), Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("granted lease %s for %v in %s", answer.GetLease().GetId(), ttl, answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "id to give it (default: the registry chooses)")
	cmd.Flags().StringVar(&name, "name", "", "local key that says who may use it")
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the lease (default: the gateway's)")
	a.RequestIDFlag(cmd)
	return cmd
}

func keepAlive(a *cli.App) *cobra.Command {
	var datacenter string
	var once bool
	cmd := &cobra.Command{
		Use: "keep-alive ID", Short: "Keep a lease alive",
		Long: `Keep a lease alive until the command is interrupted, or with --once just now. It fails with exit code 3 when
the lease has ended.`,
		Example: "  konsulctl lease keep-alive 7a1c0a5e\n  konsulctl lease keep-alive 7a1c0a5e --once",
		Args:    cli.Exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				for {
					answer, err := api.Leases.KeepAlive(ctx, &registryv1.KeepLeaseAliveRequest{Id: args[0], Datacenter: cli.Named(datacenter)})
					if err != nil && ctx.Err() != nil {
						return nil
					}
					if err != nil {
						return err
					}
					if once {
						return a.Print(answer, func(g *output.Grid) { g.Line("lease %s has %v from now on", args[0], answer.GetTtl().AsDuration()) })
					}
					select {
					case <-ctx.Done():
						return nil
					case <-time.After(answer.GetTtl().AsDuration() / 3):
					}
				}
			})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "once, instead of until the command is interrupted")
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the lease (default: the gateway's)")
	return cmd
}

func revoke(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "End a lease",
		Long:    "End a lease now: its keys are deleted, its locks are lost and kept from everybody for their delay.",
		Example: "  konsulctl lease revoke 7a1c0a5e",
		Args:    cli.Exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Leases.Revoke(ctx, &registryv1.RevokeLeaseRequest{Id: args[0], Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("revoked lease %s in %s at index %d", args[0], answer.GetMeta().GetDatacenter(), answer.GetMeta().GetIndex())
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the lease (default: the gateway's)")
	a.RequestIDFlag(cmd)
	return cmd
}

func get(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a lease and what ends with it", Example: "  konsulctl lease get 7a1c0a5e",
		Args: cli.Exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Leases.Get(ctx, &registryv1.GetLeaseRequest{Id: args[0], Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					l := answer.GetLease()
					g.Row("ID", l.GetId())
					g.Row("Name", l.GetName())
					g.Row("TTL", l.GetTtl().AsDuration().String())
					g.Row("Remaining", l.GetRemaining().AsDuration().Truncate(time.Millisecond).String())
					g.Row("Granted", output.Time(l.GetGrantedAt()))
					g.Row("Keys", strings.Join(answer.GetKeys(), ", "))
					g.Row("Locks", strings.Join(answer.GetLocks(), ", "))
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the lease (default: the gateway's)")
	return cmd
}

func list(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "list", Short: "List leases", Example: "  konsulctl lease list -o json", Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Leases.List(ctx, &registryv1.ListLeasesRequest{Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("ID", "NAME", "TTL", "REMAINING", "GRANTED")
					for _, l := range answer.GetLeases() {
						g.Row(l.GetId(), l.GetName(), l.GetTtl().AsDuration().String(), fmt.Sprint(l.GetRemaining().AsDuration().Truncate(time.Millisecond)), output.Time(l.GetGrantedAt()))
					}
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}
