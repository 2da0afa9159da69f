package command

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	failoverrouterv1 "konsul.dev/proto/gen/konsul/failoverrouter/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/output"
)

func (a *app) service() *cobra.Command {
	return group(&cobra.Command{
		Use: "service", Short: "Discover and register services",
		Example: "  konsulctl service get api\n  konsulctl service list",
	}, a.serviceGet(), a.serviceInstance(), a.serviceList(), a.serviceFailover(), a.serviceRegister(), a.serviceDeregister())
}

// serviceQuery is what `service get` was asked.
type serviceQuery struct {
	at              uint64
	datacenter      string
	allDatacenters  bool
	failover, tags  []string
	passing, anyway bool
	mode            readMode
	wanted          selection
}

func (a *app) serviceGet() *cobra.Command {
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
		Args: exactly("NAME"), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				if q.allDatacenters || len(q.failover) > 0 {
					return a.resolve(ctx, api, args[0], q)
				}
				return a.query(ctx, api, args[0], q)
			})
		},
	}
	a.datacenterFlag(cmd, &q.datacenter, "datacenter to look in (default: the gateway's)")
	flags := cmd.Flags()
	flags.BoolVar(&q.allDatacenters, "all-datacenters", false, "look in every datacenter, the own first, then the nearest")
	flags.StringSliceVar(&q.failover, "failover", nil, "datacenters to try in this order when the first has no healthy instance")
	flags.StringArrayVar(&q.tags, "tag", nil, "only instances with this tag (repeatable); commas are part of it")
	flags.BoolVar(&q.passing, "passing", true, "only passing instances")
	flags.BoolVar(&q.anyway, "all-status", false, "instances in every status")
	q.wanted.addStatus(cmd)
	q.wanted.addMeta(cmd, "only instances with this meta, KEY=VALUE (repeatable)")
	q.wanted.addNodeMeta(cmd)
	q.wanted.addFilter(cmd)
	q.mode.add(cmd)
	atIndexFlag(cmd, &q.at)
	cmd.MarkFlagsMutuallyExclusive("passing", "all-status", "status")
	for _, flag := range []string{"status", "meta", "node-meta", "filter", atIndexName} {
		cmd.MarkFlagsMutuallyExclusive("all-datacenters", flag)
		cmd.MarkFlagsMutuallyExclusive("failover", flag)
	}
	cmd.MarkFlagsMutuallyExclusive("all-datacenters", "failover")
	cmd.MarkFlagsMutuallyExclusive("all-datacenters", "datacenter")
	cmd.MarkFlagsMutuallyExclusive("all-datacenters", readModeFlag)
	cmd.MarkFlagsMutuallyExclusive("failover", readModeFlag)
	must(cmd.RegisterFlagCompletionFunc("failover", a.completeDatacenters))
	return cmd
}

func (q *serviceQuery) unhealthyToo() bool { return q.anyway || !q.passing || len(q.wanted.status) > 0 }

func (a *app) query(ctx context.Context, api konsul.API, name string, q serviceQuery) error {
	statuses, err := q.wanted.statuses()
	if err != nil {
		return err
	}
	answer, err := api.Catalog.QueryService(ctx, &registryv1.QueryServiceRequest{
		Service: name, Datacenter: named(q.datacenter), ReadMode: q.mode.mode, PassingOnly: !q.unhealthyToo(), Tags: q.tags,
		Statuses: statuses, Meta: q.wanted.meta, NodeMeta: q.wanted.nodeMeta, Filter: q.wanted.filter, AtIndex: q.at,
	})
	if err != nil {
		return err
	}
	if len(answer.GetInstances()) == 0 {
		a.noteNone(name, answer.GetMeta().GetDatacenter(), q)
	}
	return a.print(answer, func(g *output.Grid) {
		g.Row("ID", "DATACENTER", "NODE", "ADDRESS", "STATUS", "TAGS")
		for _, i := range answer.GetInstances() {
			g.Row(i.GetService().GetId(), cmp.Or(i.GetDatacenter(), answer.GetMeta().GetDatacenter()), nodeOf(i), addressOf(i), watchedStatus(i), tagsOf(i))
		}
	})
}

func (a *app) resolve(ctx context.Context, api konsul.API, name string, q serviceQuery) error {
	answer, err := api.Router.Resolve(ctx, &failoverrouterv1.ResolveRequest{
		Service: name, Datacenter: named(q.datacenter),
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
				a.note("%s could not be asked: %s", outcome.GetDatacenter(), outcome.GetError())
			}
		}
		if len(answer.GetEndpoints()) == 0 {
			a.noteNone(name, "", q)
		}
	}
	if err := a.print(answer, func(g *output.Grid) {
		g.Row("ID", "DATACENTER", "NODE", "ADDRESS", "STATUS", "ROUND TRIP", "WHY", "TAGS")
		for _, e := range answer.GetEndpoints() {
			i := e.GetInstance()
			g.Row(i.GetService().GetId(), e.GetDatacenter(), nodeOf(i), addressOf(i), watchedStatus(i), output.RoundTrip(e.GetRoundTrip()), e.GetReason(), tagsOf(i))
		}
	}); err != nil {
		return err
	}
	return unanswered
}

// noteNone says that nothing was found, and what might find more. In JSON the empty answer says it.
func (a *app) noteNone(name, datacenter string, q serviceQuery) {
	if a.format != output.Table {
		return
	}
	where, hint := "", ""
	if datacenter != "" {
		where = " in " + datacenter
	}
	if !q.unhealthyToo() {
		hint = "; --all-status shows those that are not passing"
	}
	a.note("no instances of %s%s%s", output.Cell(name), where, hint)
}

func (a *app) serviceList() *cobra.Command {
	var datacenter string
	var mode readMode
	var at uint64
	var wanted selection
	var tags []string
	cmd := &cobra.Command{
		Use: "list", Short: "List the names in the catalogue",
		Long: `List the names in the catalogue with counts of their instances. With conditions only instances that meet all of them are
counted, and names without any are left out. A filter is as that of ` + "`konsulctl service get`" + `.`,
		Example: "  konsulctl service list\n  konsulctl service list --datacenter us-west -o yaml\n  konsulctl service list --tag http --status critical",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			statuses, err := wanted.statuses()
			if err != nil {
				return err
			}
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.ListServices(ctx, &registryv1.ListServicesRequest{
					Datacenter: named(datacenter), ReadMode: mode.mode, Tags: tags, Statuses: statuses,
					Meta: wanted.meta, NodeMeta: wanted.nodeMeta, Filter: wanted.filter, AtIndex: at,
				})
				if err != nil {
					return err
				}
				return a.print(answer, func(g *output.Grid) {
					g.Row("NAME", "INSTANCES", "PASSING", "NO CHECKS", "TAGS")
					for _, s := range answer.GetServices() {
						g.Row(s.GetName(), fmt.Sprint(s.GetInstances()), fmt.Sprint(s.GetPassing()), fmt.Sprint(s.GetUnchecked()), commas(s.GetTags()))
					}
				})
			})
		},
	}
	a.datacenterFlag(cmd, &datacenter, "datacenter to list (default: the gateway's)")
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "only instances with this tag (repeatable); commas are part of it")
	wanted.addStatus(cmd)
	wanted.addMeta(cmd, "only instances with this meta, KEY=VALUE (repeatable)")
	wanted.addNodeMeta(cmd)
	wanted.addFilter(cmd)
	mode.add(cmd)
	atIndexFlag(cmd, &at)
	return cmd
}

func (a *app) serviceInstance() *cobra.Command {
	var datacenter string
	var mode readMode
	cmd := &cobra.Command{
		Use: "instance ID", Short: "Show one instance with its checks",
		Example: "  konsulctl service instance api-1\n  konsulctl service instance api-1 --datacenter us-west -o yaml",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.GetService(ctx, &registryv1.GetServiceRequest{ServiceId: args[0], Datacenter: named(datacenter), ReadMode: mode.mode})
				if err != nil {
					return inFlags(err, argumentFields)
				}
				return a.print(answer, func(g *output.Grid) { instanceTable(g, answer.GetInstance()) })
			})
		},
	}
	a.datacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	mode.add(cmd)
	return cmd
}

func (a *app) serviceFailover() *cobra.Command {
	var mode readMode
	cmd := &cobra.Command{
		Use: "failover NAME", Short: "Show where a service is looked for when it has no healthy instance",
		Long: `Show the failover policy of a service: the datacenters to try, in order, when the asked one has no healthy instance. It is
part of the service's definition, and one for the whole federation. JSON is that of GET /api/v1/failover-policies/NAME.`,
		Example: "  konsulctl service failover payment-api\n  konsulctl service failover payment-api -o json",
		Args:    exactly("NAME"), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.GetFailoverPolicy(ctx, &registryv1.GetFailoverPolicyRequest{Service: args[0], ReadMode: mode.mode})
				if err != nil {
					return err
				}
				return a.print(answer, func(g *output.Grid) {
					g.Row("ORDER", "DATACENTER", "AT MOST")
					for i, target := range answer.GetPolicy().GetFailover() {
						atMost := "all"
						if n := target.GetTargets(); n > 0 {
							atMost = count(int(n), "instance")
						}
						g.Row(fmt.Sprint(i+1), target.GetDatacenter(), atMost)
					}
				})
			})
		},
	}
	mode.add(cmd)
	return cmd
}

func instanceTable(g *output.Grid, i *registryv1.ServiceInstance) {
	g.Line("%s of %s on %s at %s is %s", i.GetService().GetId(), i.GetService().GetName(), nodeOf(i), addressOf(i), watchedStatus(i))
	if len(i.GetNodeChecks())+len(i.GetChecks()) == 0 {
		return
	}
	g.Row("CHECK", "OF", "STATUS", "TTL", "OUTPUT")
	row := func(of string, c *registryv1.Check) {
		g.Row(c.GetId(), of, statusOf(c.GetStatus()), ttlOf(c.GetTtl()), output.Clip(output.Cell(c.GetOutput()), shownValue))
	}
	for _, c := range i.GetNodeChecks() {
		row("node", c)
	}
	for _, c := range i.GetChecks() {
		row("instance", c)
	}
}

func (a *app) serviceDeregister() *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "deregister ID", Short: "Remove an instance with its checks",
		Long: `Remove an instance with its checks. An agent that has the service's definition registers it again;
take the definition away from it first.`,
		Example: "  konsulctl service deregister api-1\n  konsulctl service deregister api-1 --datacenter us-west",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.Deregister(ctx, &registryv1.DeregisterRequest{ServiceId: args[0], Datacenter: named(datacenter)})
				if err != nil {
					return inFlags(err, argumentFields)
				}
				return a.print(answer, func(g *output.Grid) {
					g.Line("deregistered %s in %s", args[0], answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	a.datacenterFlag(cmd, &datacenter, "datacenter to deregister from (default: the gateway's)")
	a.requestIDFlag(cmd)
	return cmd
}

// argumentFields returns what the argument of a command is called that names an instance or a node.
func argumentFields(field string) string {
	return map[string]string{"service_id": "id", "node": "name", "nodes": "name"}[field]
}

func nodeOf(i *registryv1.ServiceInstance) string {
	return cmp.Or(i.GetService().GetNode(), i.GetNode().GetName())
}

func addressOf(i *registryv1.ServiceInstance) string {
	host := cmp.Or(i.GetService().GetAddress(), i.GetNode().GetAddress())
	if i.GetService().GetPort() == 0 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(i.GetService().GetPort())))
}

func statusOf(s registryv1.HealthStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "HEALTH_STATUS_"))
}

// watchedStatus returns an instance's status, and that it means little when nobody watches over it.
func watchedStatus(i *registryv1.ServiceInstance) string {
	if i.GetUnchecked() {
		return statusOf(i.GetStatus()) + " (no checks)"
	}
	return statusOf(i.GetStatus())
}

func tagsOf(i *registryv1.ServiceInstance) string { return commas(i.GetService().GetTags()) }

// commas joins texts. One that holds a comma, a quote or a space is quoted, so that it is seen where each ends.
func commas(texts []string) string {
	shown := make([]string, len(texts))
	for i, text := range texts {
		if shown[i] = text; text == "" || strings.ContainsAny(text, `,"`) || strings.ContainsFunc(text, unicode.IsSpace) {
			shown[i] = strconv.Quote(text)
		}
	}
	return strings.Join(shown, ",")
}
