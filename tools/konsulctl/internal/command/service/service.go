// Package service has konsulctl's commands for services and their instances.
package service

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the service command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "service", Short: "Discover and register services",
		Example: "  konsulctl service get api\n  konsulctl service list",
	}, get(a), instance(a), list(a), failover(a), register(a), deregister(a))
}

// serviceQuery is what `service get` was asked.
type serviceQuery struct {
	at              uint64
	datacenter      string
	allDatacenters  bool
	failover, tags  []string
	passing, anyway bool
	mode            cli.ReadMode
	wanted          cli.Selection
}

func get(a *cli.App) *cobra.Command {
	var q serviceQuery
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Find the instances of a service",
		Long: `Find the instances of a service: in one datacenter, in all of them (the own first, then the nearest by
measured round trip), or in the first of a list of datacenters that has a healthy one.

Only passing instances are answered unless --all-status is given. A service nobody registered has no
instances; that is no error. Of several datacenters, those that cannot be asked are named on standard
error; it is a failure (exit code 5) only when none of them can.

--status, --meta, --node-meta and --filter select further, in one datacenter. A filter is an expression over
Service.ID, .Name, .Address, .Port, .Tags, .Meta.KEY and .Weights, Node.Name, .Address, .Meta.KEY and .Checks.ID,
Checks.ID, Status and Datacenter, with ==, !=, in, contains, matches, is empty, and, or, not.

JSON is that of GET /api/v1/health/services/NAME, or with --all-datacenters or --failover that of
GET /api/v1/resolve/NAME.`,
		Example: `  konsulctl service get api
  konsulctl service get api --datacenter us-west
  konsulctl service get api --status warning,critical
  konsulctl service get api --filter 'Service.Meta.version != "1" and "http" in Service.Tags'
  konsulctl service get api --all-datacenters
  konsulctl service get api --failover us-west,eu-central
  konsulctl service get payment-api --datacenter us-east --failover us-west,eu-central -o json`,
		Args: cli.Exactly("NAME"), ValidArgsFunction: a.CompleteServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				if q.allDatacenters || len(q.failover) > 0 {
					return resolve(ctx, a, api, args[0], q)
				}
				return query(ctx, a, api, args[0], q)
			})
		},
	}
	a.DatacenterFlag(cmd, &q.datacenter, "datacenter to look in (default: the gateway's)")
	flags := cmd.Flags()
	flags.BoolVar(&q.allDatacenters, "all-datacenters", false, "look in every datacenter, the own first, then the nearest")
	flags.StringSliceVar(&q.failover, "failover", nil, "datacenters to try in this order when the first has no healthy instance")
	flags.StringArrayVar(&q.tags, "tag", nil, "only instances with this tag (repeatable); commas are part of it")
	flags.BoolVar(&q.passing, "passing", true, "only passing instances")
	flags.BoolVar(&q.anyway, "all-status", false, "instances in every status")
	q.wanted.AddStatus(cmd)
	q.wanted.AddMeta(cmd, "only instances with this meta, KEY=VALUE (repeatable)")
	q.wanted.AddNodeMeta(cmd)
	q.wanted.AddFilter(cmd)
	q.mode.Add(cmd)
	cli.AtIndexFlag(cmd, &q.at)
	cmd.MarkFlagsMutuallyExclusive("passing", "all-status", "status")
	for _, flag := range []string{"status", "meta", "node-meta", "filter", cli.AtIndexName} {
		cmd.MarkFlagsMutuallyExclusive("all-datacenters", flag)
		cmd.MarkFlagsMutuallyExclusive("failover", flag)
	}
	cmd.MarkFlagsMutuallyExclusive("all-datacenters", "failover")
	cmd.MarkFlagsMutuallyExclusive("all-datacenters", "datacenter")
	cmd.MarkFlagsMutuallyExclusive("all-datacenters", cli.ReadModeFlag)
	cmd.MarkFlagsMutuallyExclusive("failover", cli.ReadModeFlag)
	cli.Must(cmd.RegisterFlagCompletionFunc("failover", a.CompleteDatacenters))
	return cmd
}

func (q *serviceQuery) unhealthyToo() bool { return q.anyway || !q.passing || len(q.wanted.Status) > 0 }

func query(ctx context.Context, a *cli.App, api konsul.API, name string, q serviceQuery) error {
	statuses, err := q.wanted.Statuses()
	if err != nil {
		return err
	}
	answer, err := api.Catalog.QueryService(ctx, &registryv1.QueryServiceRequest{
		Service: name, Datacenter: cli.Named(q.datacenter), ReadMode: q.mode.Mode, PassingOnly: !q.unhealthyToo(), Tags: q.tags,
		Statuses: statuses, Meta: q.wanted.Meta, NodeMeta: q.wanted.NodeMeta, Filter: q.wanted.Filter, AtIndex: q.at,
	})
	if err != nil {
		return err
	}
	if len(answer.GetInstances()) == 0 {
		noteNone(a, name, answer.GetMeta().GetDatacenter(), q)
	}
	return a.Print(answer, func(g *output.Grid) {
		g.Row("ID", "DATACENTER", "NODE", "ADDRESS", "STATUS", "TAGS")
		for _, i := range answer.GetInstances() {
			g.Row(i.GetService().GetId(), cmp.Or(i.GetDatacenter(), answer.GetMeta().GetDatacenter()), nodeOf(i), cli.AddressOf(i), cli.WatchedStatus(i), tagsOf(i))
		}
	})
}

func resolve(ctx context.Context, a *cli.App, api konsul.API, name string, q serviceQuery) error {
	answer, err := api.Router.Resolve(ctx, &failoverrouterv1.ResolveRequest{
		Service: name, Datacenter: cli.Named(q.datacenter),
		AllDatacenters: q.allDatacenters, PreferLocal: q.allDatacenters, SortByLatency: q.allDatacenters,
		Failover: q.failover, IncludeUnhealthy: q.unhealthyToo(), Tags: q.tags,
	})
	if err != nil {
		return err
	}
	unanswered := konsul.Unanswered(answer)
	if unanswered == nil {
		for _, outcome := range answer.GetDatacenters() {
			if outcome.GetError() != "" {
				a.Note("%s could not be asked: %s", outcome.GetDatacenter(), outcome.GetError())
			}
		}
		if len(answer.GetEndpoints()) == 0 {
			noteNone(a, name, "", q)
		}
	}
	if err := a.Print(answer, func(g *output.Grid) {
		g.Row("ID", "DATACENTER", "NODE", "ADDRESS", "STATUS", "ROUND TRIP", "WHY", "TAGS")
		for _, e := range answer.GetEndpoints() {
			i := e.GetInstance()
			g.Row(i.GetService().GetId(), e.GetDatacenter(), nodeOf(i), cli.AddressOf(i), cli.WatchedStatus(i), output.RoundTrip(e.GetRoundTrip()), e.GetReason(), tagsOf(i))
		}
	}); err != nil {
		return err
	}
	return unanswered
}

// noteNone says that nothing was found, and what might find more. In JSON the empty answer says it.
func noteNone(a *cli.App, name, datacenter string, q serviceQuery) {
	if a.Format != output.Table {
		return
	}
	where, hint := "", ""
	if datacenter != "" {
		where = " in " + datacenter
	}
	if !q.unhealthyToo() {
		hint = "; --all-status shows those that are not passing"
	}
	a.Note("no instances of %s%s%s", output.Cell(name), where, hint)
}

func list(a *cli.App) *cobra.Command {
	var datacenter string
	var mode cli.ReadMode
	var at uint64
	var wanted cli.Selection
	var tags []string
	cmd := &cobra.Command{
		Use: "list", Short: "List the names in the catalogue",
		Long: `List the names in the catalogue with counts of their instances. With conditions only instances that meet all of them are
counted, and names without any are left out. A filter is as that of ` + "`konsulctl service get`" + `.`,
		Example: "  konsulctl service list\n  konsulctl service list --datacenter us-west -o yaml\n  konsulctl service list --tag http --status critical",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			statuses, err := wanted.Statuses()
			if err != nil {
				return err
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.ListServices(ctx, &registryv1.ListServicesRequest{
					Datacenter: cli.Named(datacenter), ReadMode: mode.Mode, Tags: tags, Statuses: statuses,
					Meta: wanted.Meta, NodeMeta: wanted.NodeMeta, Filter: wanted.Filter, AtIndex: at,
				})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("NAME", "INSTANCES", "PASSING", "NO CHECKS", "TAGS")
					for _, s := range answer.GetServices() {
						g.Row(s.GetName(), fmt.Sprint(s.GetInstances()), fmt.Sprint(s.GetPassing()), fmt.Sprint(s.GetUnchecked()), cli.Commas(s.GetTags()))
					}
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to list (default: the gateway's)")
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "only instances with this tag (repeatable); commas are part of it")
	wanted.AddStatus(cmd)
	wanted.AddMeta(cmd, "only instances with this meta, KEY=VALUE (repeatable)")
	wanted.AddNodeMeta(cmd)
	wanted.AddFilter(cmd)
	mode.Add(cmd)
	cli.AtIndexFlag(cmd, &at)
	return cmd
}

func instance(a *cli.App) *cobra.Command {
	var datacenter string
	var mode cli.ReadMode
	cmd := &cobra.Command{
		Use: "instance ID", Short: "Show one instance with its checks",
		Example: "  konsulctl service instance api-1\n  konsulctl service instance api-1 --datacenter us-west -o yaml",
		Args:    cli.Exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.GetService(ctx, &registryv1.GetServiceRequest{ServiceId: args[0], Datacenter: cli.Named(datacenter), ReadMode: mode.Mode})
				if err != nil {
					return cli.InFlags(err, cli.ArgumentFields)
				}
				return a.Print(answer, func(g *output.Grid) { instanceTable(g, answer.GetInstance()) })
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	mode.Add(cmd)
	return cmd
}

func failover(a *cli.App) *cobra.Command {
	var mode cli.ReadMode
	cmd := &cobra.Command{
		Use: "failover NAME", Short: "Show where a service is looked for when it has no healthy instance",
		Long: `Show the failover policy of a service: the datacenters to try, in order, when the asked one has no healthy instance. It is
part of the service's definition, and one for the whole federation. JSON is that of GET /api/v1/failover-policies/NAME.`,
		Example: "  konsulctl service failover payment-api\n  konsulctl service failover payment-api -o json",
		Args:    cli.Exactly("NAME"), ValidArgsFunction: a.CompleteServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.GetFailoverPolicy(ctx, &registryv1.GetFailoverPolicyRequest{Service: args[0], ReadMode: mode.Mode})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("ORDER", "DATACENTER", "AT MOST")
					for i, target := range answer.GetPolicy().GetFailover() {
						atMost := "all"
						if n := target.GetTargets(); n > 0 {
							atMost = cli.Count(int(n), "instance")
						}
						g.Row(fmt.Sprint(i+1), target.GetDatacenter(), atMost)
					}
				})
			})
		},
	}
	mode.Add(cmd)
	return cmd
}

func instanceTable(g *output.Grid, i *registryv1.ServiceInstance) {
	g.Line("%s of %s on %s at %s is %s", i.GetService().GetId(), i.GetService().GetName(), nodeOf(i), cli.AddressOf(i), cli.WatchedStatus(i))
	if len(i.GetNodeChecks())+len(i.GetChecks()) == 0 {
		return
	}
	g.Row("CHECK", "OF", "STATUS", "TTL", "OUTPUT")
	row := func(of string, c *registryv1.Check) {
		g.Row(c.GetId(), of, cli.StatusOf(c.GetStatus()), cli.TTLOf(c.GetTtl()), output.Clip(output.Cell(c.GetOutput()), cli.ShownValue))
	}
	for _, c := range i.GetNodeChecks() {
		row("node", c)
	}
	for _, c := range i.GetChecks() {
		row("instance", c)
	}
}

func deregister(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "deregister ID", Short: "Remove an instance with its checks",
		Long: `Remove an instance with its checks. An agent that has the service's definition registers it again;
take the definition away from it first.`,
		Example: "  konsulctl service deregister api-1\n  konsulctl service deregister api-1 --datacenter us-west",
		Args:    cli.Exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.Deregister(ctx, &registryv1.DeregisterRequest{ServiceId: args[0], Datacenter: cli.Named(datacenter)})
				if err != nil {
					return cli.InFlags(err, cli.ArgumentFields)
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("deregistered %s in %s", args[0], answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to deregister from (default: the gateway's)")
	a.RequestIDFlag(cmd)
	return cmd
}

func nodeOf(i *registryv1.ServiceInstance) string {
	return cmp.Or(i.GetService().GetNode(), i.GetNode().GetName())
}

func tagsOf(i *registryv1.ServiceInstance) string { return cli.Commas(i.GetService().GetTags()) }
