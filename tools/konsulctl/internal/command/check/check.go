// Package check has konsulctl's commands for checks of instances and nodes, and for maintenance.
package check

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the check command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(
		&cobra.Command{
			Use: "check", Short: "Health checks: list them, report their outcome",
			Example: "  konsulctl check list --status critical\n  konsulctl check pass http --instance api-1",
		},
		list(a), update(a),
		report(a, "pass", "passing"), report(a, "warn", "warning"), report(a, "fail", "critical"),
		deregister(a),
	)
}

func list(a *cli.App) *cobra.Command {
	var mode cli.ReadMode
	var wanted cli.Selection
	var request registryv1.ListChecksRequest
	cmd := &cobra.Command{
		Use: "list", Short: "List checks",
		Long: `List checks of nodes and instances: all of them, or those that meet every condition given. The registry's own
checks begin with an underscore: "_maintenance", and "_liveness" of nodes that send heartbeats.`,
		Example: "  konsulctl check list --status warning,critical\n  konsulctl check list --node web-1\n  konsulctl check list --service api",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			statuses, err := wanted.Statuses()
			if err != nil {
				return err
			}
			request.Datacenter, request.ReadMode, request.Statuses = cli.Named(request.GetDatacenter()), mode.Mode, statuses
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error { return listChecks(ctx, a, api, &request) })
		},
	}
	cmd.Flags().StringVar(&request.Node, "node", "", "only the node's own checks and those of its instances")
	cmd.Flags().StringVar(&request.Service, "service", "", "only checks of this service's instances")
	cmd.Flags().StringVar(&request.CheckId, "id", "", "only checks of this id")
	wanted.AddStatus(cmd)
	a.DatacenterFlag(cmd, &request.Datacenter, "datacenter to ask (default: the gateway's)")
	mode.Add(cmd)
	return cmd
}

func listChecks(ctx context.Context, a *cli.App, api konsul.API, request *registryv1.ListChecksRequest) error {
	answer, err := api.Catalog.ListChecks(ctx, request)
	if err != nil {
		return err
	}
	return a.Print(answer, func(g *output.Grid) {
		g.Row("CHECK", "NODE", "SERVICE", "INSTANCE", "STATUS", "TTL", "SINCE", "OUTPUT")
		for _, s := range answer.GetChecks() {
			c := s.GetCheck()
			g.Row(c.GetId(), s.GetNode(), s.GetService(), c.GetServiceId(), cli.StatusOf(c.GetStatus()), cli.TTLOf(c.GetTtl()), output.Time(c.GetModifiedAt()),
				output.Clip(output.Cell(c.GetOutput()), cli.ShownValue))
		}
	})
}

func update(a *cli.App) *cobra.Command {
	var status string
	cmd := reporting(a, &cobra.Command{
		Use: "update ID (--instance ID | --node NAME) --status STATUS", Short: "Report a check's outcome",
		Long: `Report a check's outcome. A report that does not change the status costs the registry nothing, but it renews a check
with a TTL, which is critical when no report comes in time.`,
		Example: "  konsulctl check update http --instance api-1 --status passing --note '200 OK'\n  konsulctl check update disk --node web-1 --status warning",
	}, func() string { return status })
	cmd.Flags().StringVar(&status, "status", "", "passing, warning or critical")
	cli.Must(cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"passing", "warning", "critical"}, cobra.ShellCompDirectiveNoFileComp)))
	cli.Must(cmd.MarkFlagRequired("status"))
	return cmd
}

func report(a *cli.App, verb, status string) *cobra.Command {
	return reporting(a, &cobra.Command{
		Use: verb + " ID (--instance ID | --node NAME)", Short: "Report a check as " + status,
		Example: "  konsulctl check " + verb + " http --instance api-1\n  konsulctl check " + verb + " disk --node web-1 --note 'df says so'",
	}, func() string { return status })
}

// reporting makes a command that reports the check it is given.
func reporting(a *cli.App, cmd *cobra.Command, status func() string) *cobra.Command {
	var about cli.Subject
	var text, datacenter string
	cmd.Args = cli.Exactly("ID")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		health, ok := konsul.Status(status()).Proto()
		if !ok || status() == "" {
			return fault.Invalid("--status", "%q is no status", status()).WithRemedy("use passing, warning or critical")
		}
		return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
			answer, err := api.Catalog.UpdateChecks(ctx, &registryv1.UpdateChecksRequest{
				Updates:    []*registryv1.CheckUpdate{{ServiceId: about.Instance, Node: about.Node, CheckId: args[0], Status: health, Output: text}},
				Datacenter: cli.Named(datacenter),
			})
			if err != nil {
				return cli.InFlags(err, reportFields)
			}
			return a.Print(answer, func(g *output.Grid) {
				g.Line("%s of %s is %s in %s", args[0], about.String(), cli.StatusOf(health), answer.GetMeta().GetDatacenter())
			})
		})
	}
	about.Add(cmd)
	cmd.Flags().StringVar(&text, "note", "", "what the check said")
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the check (default: the gateway's)")
	a.RequestIDFlag(cmd)
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

func deregister(a *cli.App) *cobra.Command {
	var about cli.Subject
	var datacenter string
	cmd := &cobra.Command{
		Use: "deregister ID (--instance ID | --node NAME)", Short: "Remove a check",
		Example: "  konsulctl check deregister disk --node web-1",
		Args:    cli.Exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.DeregisterCheck(ctx, &registryv1.DeregisterCheckRequest{
					CheckId: args[0], ServiceId: about.Instance, Node: about.Node, Datacenter: cli.Named(datacenter),
				})
				if err != nil {
					return cli.InFlags(err, func(field string) string { return reportFields("." + field) })
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("deregistered %s of %s in %s", args[0], about.String(), answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	about.Add(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the check (default: the gateway's)")
	a.RequestIDFlag(cmd)
	return cmd
}

// checkMaintenance is the check that is critical while something is under maintenance.
const checkMaintenance = "_maintenance"

// Maintenance returns the maintenance command.
func Maintenance(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "maintenance", Aliases: []string{"maint"}, Short: "Take instances and nodes out of service for a while",
		Long: `Take instances and nodes out of service for a while: until the mode is switched off, an instance under maintenance,
and every instance of a node under maintenance, is critical.`,
		Example: "  konsulctl maintenance enable --node web-1 --reason 'new disk'\n  konsulctl maintenance status",
	}, maintenanceSwitch(a, "enable", true), maintenanceSwitch(a, "disable", false), maintenanceStatus(a))
}

func maintenanceSwitch(a *cli.App, verb string, on bool) *cobra.Command {
	var about cli.Subject
	var reason, datacenter string
	cmd := &cobra.Command{
		Use: verb + " (--instance ID | --node NAME)", Short: verb + " the maintenance mode",
		Example: "  konsulctl maintenance " + verb + " --instance api-1\n  konsulctl maintenance " + verb + " --node web-1",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.Catalog.SetMaintenance(ctx, &registryv1.SetMaintenanceRequest{
					ServiceId: about.Instance, Node: about.Node, Enabled: on, Reason: reason, Datacenter: cli.Named(datacenter),
				})
				if err != nil {
					return cli.InFlags(err, func(field string) string { return reportFields("." + field) })
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("maintenance of %s is %sd in %s", about.String(), verb, answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	about.Add(cmd)
	if on {
		cmd.Flags().StringVar(&reason, "reason", "", "what to tell whoever wonders")
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter of the instance or node (default: the gateway's)")
	a.RequestIDFlag(cmd)
	return cmd
}

func maintenanceStatus(a *cli.App) *cobra.Command {
	var mode cli.ReadMode
	request := registryv1.ListChecksRequest{CheckId: checkMaintenance}
	cmd := &cobra.Command{
		Use: "status", Short: "List what is under maintenance",
		Long:    "List what is under maintenance, as checks: those without an instance are of nodes. JSON is that of GET /api/v1/health/checks.",
		Example: "  konsulctl maintenance status\n  konsulctl maintenance status --node web-1",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request.Datacenter, request.ReadMode = cli.Named(request.GetDatacenter()), mode.Mode
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error { return listChecks(ctx, a, api, &request) })
		},
	}
	cmd.Flags().StringVar(&request.Node, "node", "", "only this node and its instances")
	cmd.Flags().StringVar(&request.Service, "service", "", "only instances of this service")
	a.DatacenterFlag(cmd, &request.Datacenter, "datacenter to ask (default: the gateway's)")
	mode.Add(cmd)
	return cmd
}
