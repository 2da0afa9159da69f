package command

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/output"
)

func (a *app) check() *cobra.Command {
	return group(
		&cobra.Command{
			Use: "check", Short: "Health checks: list them, report their outcome",
			Example: "  konsulctl check list --status critical\n  konsulctl check pass http --instance api-1",
		},
		a.checkList(), a.checkUpdate(),
		a.checkReport("pass", "passing"), a.checkReport("warn", "warning"), a.checkReport("fail", "critical"),
		a.checkDeregister(),
	)
}

func (a *app) checkList() *cobra.Command {
	var mode readMode
	var wanted selection
	var request registryv1.ListChecksRequest
	cmd := &cobra.Command{
		Use: "list", Short: "List checks",
		Long: `List checks of nodes and instances: all of them, or those that meet every condition given. The registry's own
checks begin with an underscore: "_maintenance", and "_liveness" of nodes that send heartbeats.`,
		Example: "  konsulctl check list --status warning,critical\n  konsulctl check list --node web-1\n  konsulctl check list --service api",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			statuses, err := wanted.statuses()
			if err != nil {
				return err
			}
			request.Datacenter, request.ReadMode, request.Statuses = named(request.GetDatacenter()), mode.mode, statuses
			return a.call(cmd, func(ctx context.Context, api konsul.API) error { return a.listChecks(ctx, api, &request) })
		},
	}
	cmd.Flags().StringVar(&request.Node, "node", "", "only the node's own checks and those of its instances")
	cmd.Flags().StringVar(&request.Service, "service", "", "only checks of this service's instances")
	cmd.Flags().StringVar(&request.CheckId, "id", "", "only checks of this id")
	wanted.addStatus(cmd)
	a.datacenterFlag(cmd, &request.Datacenter, "datacenter to ask (default: the gateway's)")
	mode.add(cmd)
	return cmd
}

func (a *app) listChecks(ctx context.Context, api konsul.API, request *registryv1.ListChecksRequest) error {
	answer, err := api.Catalog.ListChecks(ctx, request)
	if err != nil {
		return err
	}
	return a.print(answer, func(g *output.Grid) {
		g.Row("CHECK", "NODE", "SERVICE", "INSTANCE", "STATUS", "TTL", "SINCE", "OUTPUT")
		for _, s := range answer.GetChecks() {
			c := s.GetCheck()
			g.Row(c.GetId(), s.GetNode(), s.GetService(), c.GetServiceId(), statusOf(c.GetStatus()), ttlOf(c.GetTtl()), output.Time(c.GetModifiedAt()),
				output.Clip(output.Cell(c.GetOutput()), shownValue))
		}
	})
}

func (a *app) checkUpdate() *cobra.Command {
	var status string
	cmd := a.reporting(&cobra.Command{
		Use: "update ID (--instance ID | --node NAME) --status STATUS", Short: "Report a check's outcome",
		Long: `Report a check's outcome. A report that does not change the status costs the registry nothing, but it renews a check
with a TTL, which is critical when no report comes in time.`,
		Example: "  konsulctl check update http --instance api-1 --status passing --note '200 OK'\n  konsulctl check update disk --node web-1 --status warning",
	}, func() string { return status })
	cmd.Flags().StringVar(&status, "status", "", "passing, warning or critical")
	must(cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"passing", "warning", "critical"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.MarkFlagRequired("status"))
	return cmd
}

func (a *app) checkReport(verb, status string) *cobra.Command {
	return a.reporting(&cobra.Command{
		Use: verb + " ID (--instance ID | --node NAME)", Short: "Report a check as " + status,
		Example: "  konsulctl check " + verb + " http --instance api-1\n  konsulctl check " + verb + " disk --node web-1 --note 'df says so'",
	}, func() string { return status })
}

// reporting makes a command that reports the check it is given.
func (a *app) reporting(cmd *cobra.Command, status func() string) *cobra.Command {
	var about subject
	var text, datacenter string
	cmd.Args = exactly("ID")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		health, ok := konsul.Status(status()).Proto()
		if !ok || status() == "" {
			return fault.Invalid("--status", "%q is no status", status()).WithRemedy("use passing, warning or critical")
		}
		return a.call(cmd, func(ctx context.Context, api konsul.API) error {
			answer, err := api.Catalog.UpdateChecks(ctx, &registryv1.UpdateChecksRequest{
				Updates:    []*registryv1.CheckUpdate{{ServiceId: about.instance, Node: about.node, CheckId: args[0], Status: health, Output: text}},
				Datacenter: named(datacenter),
			})
			if err != nil {
				return inFlags(err, reportFields)
			}
			return a.print(answer, func(g *output.Grid) {
				g.Line("%s of %s is %s in %s", args[0], about.String(), statusOf(health), answer.GetMeta().GetDatacenter())
			})
		})
	}
	about.add(cmd)
	cmd.Flags().StringVar(&text, "note", "", "what the check said")
	a.datacenterFlag(cmd, &datacenter, "datacenter of the check (default: the gateway's)")
	a.requestIDFlag(cmd)
	return cmd
}

// reportFields returns the flag or argument that a field of a report is made of.
func reportFields(field string) string {
	switch strings.TrimPrefix(field, "updates[0]") {
	case ".check_id":
		return "id"
	case ".service_id":
		return "--instance"
	case ".node":
		return "--node"
	case ".output":
		return "--note"
	}
	return ""
}

func (a *app) checkDeregister() *cobra.Command {
	var about subject
	var datacenter string
	cmd := &cobra.Command{
		Use: "deregister ID (--instance ID | --node NAME)", Short: "Remove a check",
		Example: "  konsulctl check deregister disk --node web-1",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.DeregisterCheck(ctx, &registryv1.DeregisterCheckRequest{
					CheckId: args[0], ServiceId: about.instance, Node: about.node, Datacenter: named(datacenter),
				})
				if err != nil {
					return inFlags(err, func(field string) string { return reportFields("." + field) })
				}
				return a.print(answer, func(g *output.Grid) {
					g.Line("deregistered %s of %s in %s", args[0], about.String(), answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	about.add(cmd)
	a.datacenterFlag(cmd, &datacenter, "datacenter of the check (default: the gateway's)")
	a.requestIDFlag(cmd)
	return cmd
}

// checkMaintenance is the check that is critical while something is under maintenance.
const checkMaintenance = "_maintenance"

func (a *app) maintenance() *cobra.Command {
	return group(&cobra.Command{
		Use: "maintenance", Aliases: []string{"maint"}, Short: "Take instances and nodes out of service for a while",
		Long: `Take instances and nodes out of service for a while: until the mode is switched off, an instance under maintenance,
and every instance of a node under maintenance, is critical.`,
		Example: "  konsulctl maintenance enable --node web-1 --reason 'new disk'\n  konsulctl maintenance status",
	}, a.maintenanceSwitch("enable", true), a.maintenanceSwitch("disable", false), a.maintenanceStatus())
}

func (a *app) maintenanceSwitch(verb string, on bool) *cobra.Command {
	var about subject
	var reason, datacenter string
	cmd := &cobra.Command{
		Use: verb + " (--instance ID | --node NAME)", Short: verb + " the maintenance mode",
		Example: "  konsulctl maintenance " + verb + " --instance api-1\n  konsulctl maintenance " + verb + " --node web-1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.SetMaintenance(ctx, &registryv1.SetMaintenanceRequest{
					ServiceId: about.instance, Node: about.node, Enabled: on, Reason: reason, Datacenter: named(datacenter),
				})
				if err != nil {
					return inFlags(err, func(field string) string { return reportFields("." + field) })
				}
				return a.print(answer, func(g *output.Grid) {
					g.Line("maintenance of %s is %sd in %s", about.String(), verb, answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	about.add(cmd)
	if on {
		cmd.Flags().StringVar(&reason, "reason", "", "what to tell whoever wonders")
	}
	a.datacenterFlag(cmd, &datacenter, "datacenter of the instance or node (default: the gateway's)")
	a.requestIDFlag(cmd)
	return cmd
}

func (a *app) maintenanceStatus() *cobra.Command {
	var mode readMode
	request := registryv1.ListChecksRequest{CheckId: checkMaintenance}
	cmd := &cobra.Command{
		Use: "status", Short: "List what is under maintenance",
		Long:    "List what is under maintenance, as checks: those without an instance are of nodes. JSON is that of GET /api/v1/health/checks.",
		Example: "  konsulctl maintenance status\n  konsulctl maintenance status --node web-1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request.Datacenter, request.ReadMode = named(request.GetDatacenter()), mode.mode
			return a.call(cmd, func(ctx context.Context, api konsul.API) error { return a.listChecks(ctx, api, &request) })
		},
	}
	cmd.Flags().StringVar(&request.Node, "node", "", "only this node and its instances")
	cmd.Flags().StringVar(&request.Service, "service", "", "only instances of this service")
	a.datacenterFlag(cmd, &request.Datacenter, "datacenter to ask (default: the gateway's)")
	mode.add(cmd)
	return cmd
}
