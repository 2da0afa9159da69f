package acl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

func role(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "role", Short: "Keep roles: policies under a name",
		Long:    "Keep roles: policies under a name, for tokens to have together.",
		Example: "  konsulctl acl role create engineer --policy web --policy logs",
	}, rolePut(a, true), rolePut(a, false), roleGet(a), roleList(a), roleDelete(a))
}

// rolePut creates a role, or changes what was given of one.
func rolePut(a *cli.App, fresh bool) *cobra.Command {
	var description string
	var policies []string
	var cas uint64
	cmd := &cobra.Command{
		Args: cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			given := &registryv1.ACLRole{Name: args[0], Description: description, Policies: policies}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				if fresh {
					answer, err := api.ACL.CreateRole(ctx, &registryv1.CreateRoleRequest{Role: given})
					if err != nil {
						return err
					}
					return a.Print(answer, func(g *output.Grid) { roleTable(g, answer.GetRole()) })
				}
				request := &registryv1.UpdateRoleRequest{Role: given}
				if cmd.Flags().Changed("cas") {
					request.Cas = &cas
				}
				if !cmd.Flags().Changed("description") || !cmd.Flags().Changed("policy") {
					old, err := api.ACL.GetRole(ctx, &registryv1.GetRoleRequest{Name: args[0]})
					if err != nil {
						return err
					}
					if !cmd.Flags().Changed("description") {
						given.Description = old.GetRole().GetDescription()
					}
					if !cmd.Flags().Changed("policy") {
						given.Policies = old.GetRole().GetPolicies()
					}
				}
				answer, err := api.ACL.UpdateRole(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { roleTable(g, answer.GetRole()) })
			})
		},
	}
	a.RequestIDFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&description, "description", "", "what it is for")
	flags.StringSliceVar(&policies, "policy", nil, "a policy it has (repeatable)")
	if fresh {
		cmd.Use, cmd.Short = "create NAME", "Make a role"
		cmd.Long = "Make a role. JSON is that of POST /api/v1/acl/roles."
		cmd.Example = "  konsulctl acl role create engineer --policy web --policy logs"
		return cmd
	}
	flags.Uint64Var(&cas, "cas", 0, "write only if the primary's index of the role is this")
	cmd.Use, cmd.Short = "update NAME", "Change a role"
	cmd.Long = "Change a role. Policies that are given replace all it had; what is not given stays.\nJSON is that of PUT /api/v1/acl/roles/NAME."
	cmd.Example = "  konsulctl acl role update engineer --policy web,logs,deploy"
	return cmd
}

func roleTable(g *output.Grid, r *registryv1.ACLRole) {
	g.Row("Role", r.GetName())
	g.Row("Description", r.GetDescription())
	g.Row("Policies", strings.Join(r.GetPolicies(), ","))
	g.Row("Index", fmt.Sprint(r.GetModifyIndex()))
}

func roleGet(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a role", Long: "Show a role. JSON is that of GET /api/v1/acl/roles/NAME.",
		Example: "  konsulctl acl role get engineer", Args: cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.GetRole(ctx, &registryv1.GetRoleRequest{Name: args[0], Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { roleTable(g, answer.GetRole()) })
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func roleList(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "list", Short: "List the roles", Long: "List the roles. JSON is that of GET /api/v1/acl/roles.",
		Example: "  konsulctl acl role list", Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.ListRoles(ctx, &registryv1.ListRolesRequest{Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("ROLE", "POLICIES", "INDEX", "DESCRIPTION")
					for _, r := range answer.GetRoles() {
						g.Row(r.GetName(), strings.Join(r.GetPolicies(), ","), fmt.Sprint(r.GetModifyIndex()), output.Clip(r.GetDescription(), cli.ShownValue))
					}
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func roleDelete(a *cli.App) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a role",
		Long: `Delete a role. It is refused while a token that the primary knows has it, unless forced: they lose then what
it grants. Tokens keep the name: a new role of that name is theirs again.`,
		Example: "  konsulctl acl role delete engineer", Args: cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.DeleteRole(ctx, &registryv1.DeleteRoleRequest{Name: args[0], Force: force})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { g.Line("deleted role %s", args[0]) })
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while tokens have it")
	a.RequestIDFlag(cmd)
	return cmd
}
