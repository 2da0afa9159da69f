// Package node has konsulctl's commands for nodes.
package node

import (
	"context"
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

// Command returns the node command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "node", Short: "The machines that services run on",
		Example: "  konsulctl node list\n  konsulctl node get web-1",
	}, list(a), get(a), register(a), deregister(a), heartbeat(a))
}

func list(a *cli.App) *cobra.Command {
	var datacenter string
	var mode cli.ReadMode
	var at uint64
	var wanted cli.Selection
	cmd := &cobra.Command{
		Use: "list", Short: "List the nodes in the catalogue",
		Long: `List the nodes in the catalogue: all of them, or those that meet every condition given.

A filter is an expression over Name, Address, Meta.KEY, Status and Checks.ID, with ==, !=, in, contains, matches,
is empty, and, or, not. A node's status is that of its own checks: "_liveness" (its heartbeats) and
"_maintenance" among them.`,
		Example: `  konsulctl node list
  konsulctl node list --status critical
  konsulctl node list --meta rack=a1 --filter 'Name matches "^web-"'`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			statuses, err := wanted.Statuses()
			if err != nil {
				return err
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.ListNodes(ctx, &registryv1.ListNodesRequest{
					Datacenter: cli.Named(datacenter), ReadMode: mode.Mode, Meta: wanted.Meta, Statuses: statuses, Filter: wanted.Filter, AtIndex: at,
				})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("NAME", "ADDRESS", "LIVENESS TTL", "META")
					for _, n := range answer.GetNodes() {
						g.Row(n.GetName(), n.GetAddress(), cli.TTLOf(n.GetLivenessTtl()), cli.MetaOf(n.GetMeta()))
					}
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to list (default: the gateway's)")
	wanted.AddMeta(cmd, "only nodes with this meta, KEY=VALUE (repeatable)")
	wanted.AddStatus(cmd)
	wanted.AddFilter(cmd)
	mode.Add(cmd)
	cli.AtIndexFlag(cmd, &at)
	return cmd
}

func get(a *cli.App) *cobra.Command {
	var datacenter string
	var mode cli.ReadMode
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a node with its checks and instances",
		Long:    "Show a node, its own checks, and the instances registered on it with the status they are answered with.",
		Example: "  konsulctl node get web-1\n  konsulctl node get web-1 --datacenter us-west -o yaml",
		Args:    cli.Exactly("NAME"), ValidArgsFunction: completeNodes(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.GetNode(ctx, &registryv1.GetNodeRequest{Node: args[0], Datacenter: cli.Named(datacenter), ReadMode: mode.Mode})
				if err != nil {
					return cli.InFlags(err, cli.ArgumentFields)
				}
				return a.Print(answer, func(g *output.Grid) {
					n := answer.GetNode()
					g.Line("%s at %s is %s", n.GetName(), n.GetAddress(), cli.StatusOf(answer.GetStatus()))
					if len(n.GetMeta()) > 0 {
						g.Line("meta: %s", cli.MetaOf(n.GetMeta()))
					}
					g.Row("KIND", "ID", "SERVICE", "ADDRESS", "STATUS", "OUTPUT")
					for _, c := range answer.GetChecks() {
						g.Row("check", c.GetId(), "", "", cli.StatusOf(c.GetStatus()), output.Clip(output.Cell(c.GetOutput()), cli.ShownValue))
					}
					for _, i := range answer.GetInstances() {
						g.Row("instance", i.GetService().GetId(), i.GetService().GetName(), cli.AddressOf(i), cli.WatchedStatus(i), "")
					}
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	mode.Add(cmd)
	return cmd
}

func register(a *cli.App) *cobra.Command {
	var datacenter, address string
	var meta map[string]string
	var ttl time.Duration
	var replace bool
	cmd := &cobra.Command{
		Use: "register NAME --address HOST", Short: "Put a node into the catalogue",
		Long: `Put a node into the catalogue, or update what is said of it. Its instances and checks stay, and so do the meta and the
liveness TTL that are not given; --replace drops them, and --liveness-ttl 0 ends the expectation of heartbeats.

With --liveness-ttl somebody must send heartbeats for it (` + "`konsulctl node heartbeat`" + `, PUT /api/v1/catalog/heartbeats, the SDK): when none
came for so long, all its instances are critical, and after registry.catalog.reap_after it is deregistered.`,
		Example: "  konsulctl node register web-1 --address 10.0.0.5 --meta rack=a1\n  konsulctl node register web-1 --address 10.0.0.5 --liveness-ttl 30s",
		Args:    cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := cli.HostIn("--address", address)
			if err != nil {
				return err
			}
			node := &registryv1.Node{Name: args[0], Address: host, Meta: meta}
			if cmd.Flags().Changed("liveness-ttl") {
				node.LivenessTtl = durationpb.New(ttl)
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.RegisterNode(ctx, &registryv1.RegisterNodeRequest{Node: node, Datacenter: cli.Named(datacenter), Replace: replace})
				if err != nil {
					return cli.InFlags(err, func(field string) string { return fields()[field] })
				}
				return a.Print(answer, func(g *output.Grid) { g.Line("registered node %s in %s", args[0], answer.GetMeta().GetDatacenter()) })
			})
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "host or IP of the node")
	cmd.Flags().Var((*cli.Pairs)(&meta), "meta", "KEY=VALUE (repeatable)")
	cmd.Flags().BoolVar(&replace, "replace", false, "drop the meta and the liveness TTL that are not given")
	cmd.Flags().DurationVar(&ttl, "liveness-ttl", 0, "how long the node may be silent (default: as before, for ever if it is new)")
	a.DatacenterFlag(cmd, &datacenter, "datacenter to register in (default: the gateway's)")
	cli.Must(cmd.MarkFlagRequired("address"))
	a.RequestIDFlag(cmd)
	return cmd
}

func deregister(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "deregister NAME", Short: "Remove a node with its instances and checks",
		Long:    "Remove a node with all its instances and checks, in one commit. An agent that runs there registers them again; stop it first.",
		Example: "  konsulctl node deregister web-1",
		Args:    cli.Exactly("NAME"), ValidArgsFunction: completeNodes(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.DeregisterNode(ctx, &registryv1.DeregisterNodeRequest{Node: args[0], Datacenter: cli.Named(datacenter)})
				if err != nil {
					return cli.InFlags(err, cli.ArgumentFields)
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("deregistered %s with %s in %s", args[0], cli.Count(int(answer.GetInstances()), "instance"), answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to deregister from (default: the gateway's)")
	a.RequestIDFlag(cmd)
	return cmd
}

func heartbeat(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "heartbeat NAME...", Short: "Say that nodes are alive",
		Long: `Say that nodes are alive that were registered with a liveness TTL. It fails with exit code 3 when one of them was not:
register it again.`,
		Example: "  konsulctl node heartbeat web-1 web-2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Exactly("NAME")(cmd, args)
			}
			return nil
		},
		ValidArgsFunction: completeNodes(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.Heartbeat(ctx, &registryv1.HeartbeatRequest{Nodes: args, Datacenter: cli.Named(datacenter)})
				if err != nil {
					return cli.InFlags(err, cli.ArgumentFields)
				}
				if err := a.Print(answer, func(g *output.Grid) {
					g.Line("%s alive in %s", cli.Count(len(args)-len(answer.GetUnknown()), "node"), answer.GetMeta().GetDatacenter())
				}); err != nil || len(answer.GetUnknown()) == 0 {
					return err
				}
				return fault.New(fault.NotFound, konsul.ReasonNoHeartbeats, "nobody expects heartbeats of %s", strings.Join(answer.GetUnknown(), ", ")).
					WithRemedy("register it with a liveness TTL")
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the nodes (default: the gateway's)")
	return cmd
}

func completeNodes(a *cli.App) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && cmd.Name() != "heartbeat" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.Complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
			answer, err := api.Catalog.ListNodes(ctx, &registryv1.ListNodesRequest{ReadMode: registryv1.ReadMode_READ_MODE_STALE})
			for _, n := range answer.GetNodes() {
				names = append(names, n.GetName())
			}
			return names, err
		})
	}
}

// nodeFields are the flags and arguments that a node's fields are made of.
func fields() map[string]string {
	return map[string]string{"node.name": "name", "node.address": "--address", "node.meta": "--meta", "node.liveness_ttl": "--liveness-ttl"}
}
