package command

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/output"
)

func (a *app) node() *cobra.Command {
	return group(&cobra.Command{
		Use: "node", Short: "The machines that services run on",
		Example: "  konsulctl node list\n  konsulctl node get web-1",
	}, a.nodeList(), a.nodeGet(), a.nodeRegister(), a.nodeDeregister(), a.nodeHeartbeat())
}

func (a *app) nodeList() *cobra.Command {
	var datacenter string
	var mode readMode
	var at uint64
	var wanted selection
	cmd := &cobra.Command{
		Use: "list", Short: "List the nodes in the catalogue",
		Long: `List the nodes in the catalogue: all of them, or those that meet every condition given.

A filter is an expression over Name, Address, Meta.KEY, Status and Checks.ID, with ==, !=, in, contains, matches,
is empty, and, or, not. A node's status is that of its own checks: "_liveness" (its heartbeats) and
"_maintenance" among them.`,
		Example: `  konsulctl node list
  konsulctl node list --status critical
  konsulctl node list --meta rack=a1 --filter 'Name matches "^web-"'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			statuses, err := wanted.statuses()
			if err != nil {
				return err
			}
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.ListNodes(ctx, &registryv1.ListNodesRequest{
					Datacenter: named(datacenter), ReadMode: mode.mode, Meta: wanted.meta, Statuses: statuses, Filter: wanted.filter, AtIndex: at,
				})
				if err != nil {
					return err
				}
				return a.print(answer, func(g *output.Grid) {
					g.Row("NAME", "ADDRESS", "LIVENESS TTL", "META")
					for _, n := range answer.GetNodes() {
						g.Row(n.GetName(), n.GetAddress(), ttlOf(n.GetLivenessTtl()), metaOf(n.GetMeta()))
					}
				})
			})
		},
	}
	a.datacenterFlag(cmd, &datacenter, "datacenter to list (default: the gateway's)")
	wanted.addMeta(cmd, "only nodes with this meta, KEY=VALUE (repeatable)")
	wanted.addStatus(cmd)
	wanted.addFilter(cmd)
	mode.add(cmd)
	atIndexFlag(cmd, &at)
	return cmd
}

func (a *app) nodeGet() *cobra.Command {
	var datacenter string
	var mode readMode
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a node with its checks and instances",
		Long:    "Show a node, its own checks, and the instances registered on it with the status they are answered with.",
		Example: "  konsulctl node get web-1\n  konsulctl node get web-1 --datacenter us-west -o yaml",
		Args:    exactly("NAME"), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.GetNode(ctx, &registryv1.GetNodeRequest{Node: args[0], Datacenter: named(datacenter), ReadMode: mode.mode})
				if err != nil {
					return inFlags(err, argumentFields)
				}
				return a.print(answer, func(g *output.Grid) {
					n := answer.GetNode()
					g.Line("%s at %s is %s", n.GetName(), n.GetAddress(), statusOf(answer.GetStatus()))
					if len(n.GetMeta()) > 0 {
						g.Line("meta: %s", metaOf(n.GetMeta()))
					}
					g.Row("KIND", "ID", "SERVICE", "ADDRESS", "STATUS", "OUTPUT")
					for _, c := range answer.GetChecks() {
						g.Row("check", c.GetId(), "", "", statusOf(c.GetStatus()), output.Clip(output.Cell(c.GetOutput()), shownValue))
					}
					for _, i := range answer.GetInstances() {
						g.Row("instance", i.GetService().GetId(), i.GetService().GetName(), addressOf(i), watchedStatus(i), "")
					}
				})
			})
		},
	}
	a.datacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	mode.add(cmd)
	return cmd
}

func (a *app) nodeRegister() *cobra.Command {
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
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := hostIn("--address", address)
			if err != nil {
				return err
			}
			node := &registryv1.Node{Name: args[0], Address: host, Meta: meta}
			if cmd.Flags().Changed("liveness-ttl") {
				node.LivenessTtl = durationpb.New(ttl)
			}
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.RegisterNode(ctx, &registryv1.RegisterNodeRequest{Node: node, Datacenter: named(datacenter), Replace: replace})
				if err != nil {
					return inFlags(err, func(field string) string { return nodeFields()[field] })
				}
				return a.print(answer, func(g *output.Grid) { g.Line("registered node %s in %s", args[0], answer.GetMeta().GetDatacenter()) })
			})
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "host or IP of the node")
	cmd.Flags().Var((*pairs)(&meta), "meta", "KEY=VALUE (repeatable)")
	cmd.Flags().BoolVar(&replace, "replace", false, "drop the meta and the liveness TTL that are not given")
	cmd.Flags().DurationVar(&ttl, "liveness-ttl", 0, "how long the node may be silent (default: as before, for ever if it is new)")
	a.datacenterFlag(cmd, &datacenter, "datacenter to register in (default: the gateway's)")
	must(cmd.MarkFlagRequired("address"))
	a.requestIDFlag(cmd)
	return cmd
}

func (a *app) nodeDeregister() *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "deregister NAME", Short: "Remove a node with its instances and checks",
		Long:    "Remove a node with all its instances and checks, in one commit. An agent that runs there registers them again; stop it first.",
		Example: "  konsulctl node deregister web-1",
		Args:    exactly("NAME"), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.DeregisterNode(ctx, &registryv1.DeregisterNodeRequest{Node: args[0], Datacenter: named(datacenter)})
				if err != nil {
					return inFlags(err, argumentFields)
				}
				return a.print(answer, func(g *output.Grid) {
					g.Line("deregistered %s with %s in %s", args[0], count(int(answer.GetInstances()), "instance"), answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	a.datacenterFlag(cmd, &datacenter, "datacenter to deregister from (default: the gateway's)")
	a.requestIDFlag(cmd)
	return cmd
}

func (a *app) nodeHeartbeat() *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "heartbeat NAME...", Short: "Say that nodes are alive",
		Long: `Say that nodes are alive that were registered with a liveness TTL. It fails with exit code 3 when one of them was not:
register it again.`,
		Example: "  konsulctl node heartbeat web-1 web-2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exactly("NAME")(cmd, args)
			}
			return nil
		},
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.Heartbeat(ctx, &registryv1.HeartbeatRequest{Nodes: args, Datacenter: named(datacenter)})
				if err != nil {
					return inFlags(err, argumentFields)
				}
				if err := a.print(answer, func(g *output.Grid) {
					g.Line("%s alive in %s", count(len(args)-len(answer.GetUnknown()), "node"), answer.GetMeta().GetDatacenter())
				}); err != nil || len(answer.GetUnknown()) == 0 {
					return err
				}
				return fault.New(fault.NotFound, konsul.ReasonNoHeartbeats, "nobody expects heartbeats of %s", strings.Join(answer.GetUnknown(), ", ")).
					WithRemedy("register it with a liveness TTL")
			})
		},
	}
	a.datacenterFlag(cmd, &datacenter, "datacenter of the nodes (default: the gateway's)")
	return cmd
}

func (a *app) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() != "heartbeat" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
		answer, err := api.Catalog.ListNodes(ctx, &registryv1.ListNodesRequest{ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		for _, n := range answer.GetNodes() {
			names = append(names, n.GetName())
		}
		return names, err
	})
}

// nodeFields are the flags and arguments that a node's fields are made of.
func nodeFields() map[string]string {
	return map[string]string{"node.name": "name", "node.address": "--address", "node.meta": "--meta", "node.liveness_ttl": "--liveness-ttl"}
}

func metaOf(meta map[string]string) string {
	pairs := make([]string, 0, len(meta))
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		pairs = append(pairs, key+"="+meta[key])
	}
	return commas(pairs)
}

func ttlOf(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return fmt.Sprint(d.AsDuration())
}
