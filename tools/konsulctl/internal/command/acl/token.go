package acl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

func token(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "token", Short: "Keep tokens: who somebody is, and what they have",
		Long: `Keep tokens. A token is named by its accessor id, which is no secret, and used by its secret, which is shown once,
when it is made. The token ` + anonymousAccessor + ` stands for requests without one: give it
policies or roles to let them do something.`,
		Example: "  konsulctl acl token create --policy web --description 'web servers' --ttl 720h --out web.token",
	}, tokenNew(a), tokenUpdate(a), tokenClone(a), tokenGet(a), tokenList(a), tokenDelete(a))
}

func tokenTable(g *output.Grid, t *registryv1.Token) {
	scope, expires := "global", "never"
	if t.GetLocal() {
		scope = "local"
	}
	if t.GetExpiresAt() != nil {
		expires = output.Time(t.GetExpiresAt())
	}
	g.Row("Accessor", t.GetAccessorId())
	g.Row("Description", t.GetDescription())
	g.Row("Has", holdings(t))
	g.Row("Scope", scope)
	g.Row("Created", output.Time(t.GetCreatedAt()))
	g.Row("Expires", expires)
	g.Row("Index", fmt.Sprint(t.GetModifyIndex()))
}

// holdings says in one cell what a token has.
func holdings(t *registryv1.Token) string {
	var out []string
	if t.GetManagement() {
		out = append(out, "everything")
	}
	if len(t.GetPolicies()) > 0 {
		out = append(out, "policies "+strings.Join(t.GetPolicies(), ","))
	}
	if len(t.GetRoles()) > 0 {
		out = append(out, "roles "+strings.Join(t.GetRoles(), ","))
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, "; ")
}

func tokenNew(a *cli.App) *cobra.Command {
	request := &registryv1.CreateTokenRequest{}
	var ttl time.Duration
	var out, datacenter string
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token",
		Long: `Make a token. Its secret is shown only this once: written to standard output, or with --out to a new file that
only you can read. JSON is that of POST /api/v1/acl/tokens.`,
		Example: `  konsulctl acl token create --policy web --ttl 720h --out web.token
  konsulctl acl token create --management --description 'the second key'
  konsulctl acl token create --local --datacenter us-west --role engineer`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("ttl") {
				request.Ttl = durationpb.New(ttl)
			}
			if request.Datacenter = cli.Named(datacenter); request.GetDatacenter() != "" && !request.GetLocal() {
				return fault.Invalid("--datacenter", "goes with --local only").WithRemedy("leave it out: a global token is made in the primary")
			}
			request.Secret = newSecret()
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				return newToken(a, out, func() (shownToken, error) { return api.ACL.CreateToken(ctx, request) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Description, "description", "", "what it is for")
	flags.StringSliceVar(&request.Policies, "policy", nil, "a policy it has (repeatable)")
	flags.StringSliceVar(&request.Roles, "role", nil, "a role it has (repeatable)")
	flags.BoolVar(&request.Management, "management", false, "it may do everything")
	flags.BoolVar(&request.Local, "local", false, "it stays in the datacenter that makes it")
	flags.DurationVar(&ttl, "ttl", 0, "how long it is good (default: until it is deleted)")
	flags.StringVar(&out, "out", "", "write the secret to this new file")
	a.DatacenterFlag(cmd, &datacenter, "datacenter in which to make a local token (default: the gateway's)")
	return cmd
}

func tokenUpdate(a *cli.App) *cobra.Command {
	var given registryv1.UpdateTokenRequest
	var ttl time.Duration
	var never bool
	var datacenter string
	cmd := &cobra.Command{
		Use: "update ACCESSOR", Short: "Change what a token has",
		Long: `Change what a token has. Policies and roles that are given replace all it had of that kind; what is not given
stays. Its secret and its scope stay. JSON is that of PUT /api/v1/acl/tokens/ACCESSOR.`,
		Example: `  konsulctl acl token update 1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f --policy web,logs
  konsulctl acl token update ` + anonymousAccessor + ` --policy public`,
		Args: cli.Exactly("ACCESSOR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				old, err := api.ACL.GetToken(ctx, &registryv1.GetTokenRequest{AccessorId: args[0], Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				request := &registryv1.UpdateTokenRequest{
					AccessorId: args[0], Description: old.GetToken().GetDescription(), Policies: old.GetToken().GetPolicies(), Roles: old.GetToken().GetRoles(),
					Management: old.GetToken().GetManagement(), ExpiresAt: old.GetToken().GetExpiresAt(), Force: given.GetForce(), Datacenter: cli.Named(datacenter),
				}
				changed := cmd.Flags().Changed
				if changed("description") {
					request.Description = given.GetDescription()
				}
				if changed("policy") {
					request.Policies = given.GetPolicies()
				}
				if changed("role") {
					request.Roles = given.GetRoles()
				}
				if changed("management") {
					request.Management = given.GetManagement()
				}
				if never {
					request.ExpiresAt = nil
				}
				if changed("ttl") {
					request.ExpiresAt = timestamppb.New(time.Now().Add(ttl))
				}
				answer, err := api.ACL.UpdateToken(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { tokenTable(g, answer.GetToken()) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&given.Description, "description", "", "what it is for")
	flags.StringSliceVar(&given.Policies, "policy", nil, "a policy it has (repeatable)")
	flags.StringSliceVar(&given.Roles, "role", nil, "a role it has (repeatable)")
	flags.BoolVar(&given.Management, "management", false, "it may do everything")
	flags.DurationVar(&ttl, "ttl", 0, "how long it is good from now on")
	flags.BoolVar(&never, "never-expires", false, "it is good until it is deleted")
	flags.BoolVar(&given.Force, "force", false, "also when no management token would be left")
	cmd.MarkFlagsMutuallyExclusive("ttl", "never-expires")
	a.DatacenterFlag(cmd, &datacenter, "datacenter of a local token (default: the gateway's)")
	return cmd
}

func tokenClone(a *cli.App) *cobra.Command {
	var description, out, datacenter string
	cmd := &cobra.Command{
		Use: "clone ACCESSOR", Short: "Make a token that has what another one has",
		Long: `Make a token that has what another one has, with a secret of its own, which is shown only this once. It does not
expire, even if the other one does. JSON is that of POST /api/v1/acl/tokens/ACCESSOR/clone.`,
		Example: "  konsulctl acl token clone 1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f --out second.token", Args: cli.Exactly("ACCESSOR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				return newToken(a, out, func() (shownToken, error) {
					return api.ACL.CloneToken(ctx, &registryv1.CloneTokenRequest{
						AccessorId: args[0], Description: description, Secret: newSecret(), Datacenter: cli.Named(datacenter),
					})
				})
			})
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "what it is for (default: that of the other one)")
	cmd.Flags().StringVar(&out, "out", "", "write the secret to this new file")
	a.DatacenterFlag(cmd, &datacenter, "datacenter of a local token (default: the gateway's)")
	return cmd
}

func tokenGet(a *cli.App) *cobra.Command {
	var datacenter string
	var self bool
	cmd := &cobra.Command{
		Use: "get ACCESSOR | --self", Short: "Show a token, without its secret",
		Long: `Show a token, without its secret; with --self the one the command carries, which takes no permission. JSON is that
of GET /api/v1/acl/tokens/ACCESSOR or GET /api/v1/acl/self.`,
		Example: "  konsulctl acl token get 1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f\n  konsulctl acl token get --self",
		Args: func(cmd *cobra.Command, args []string) error {
			if self {
				return cli.Exactly()(cmd, args)
			}
			return cli.Exactly("ACCESSOR")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				if self {
					answer, err := api.ACL.GetSelf(ctx, &registryv1.GetSelfRequest{Datacenter: cli.Named(datacenter)})
					if err != nil {
						return err
					}
					return a.Print(answer, func(g *output.Grid) { tokenTable(g, answer.GetToken()) })
				}
				answer, err := api.ACL.GetToken(ctx, &registryv1.GetTokenRequest{AccessorId: args[0], Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { tokenTable(g, answer.GetToken()) })
			})
		},
	}
	cmd.Flags().BoolVar(&self, "self", false, "the token the command carries")
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func tokenList(a *cli.App) *cobra.Command {
	request := &registryv1.ListTokensRequest{}
	var datacenter string
	cmd := &cobra.Command{
		Use: "list", Short: "List the tokens a datacenter knows", Long: "List the tokens a datacenter knows, without secrets. JSON is that of GET /api/v1/acl/tokens.",
		Example: "  konsulctl acl token list\n  konsulctl acl token list --policy web", Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request.Datacenter = cli.Named(datacenter)
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.ListTokens(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("ACCESSOR", "SCOPE", "HAS", "EXPIRES", "DESCRIPTION")
					for _, t := range answer.GetTokens() {
						scope := "global"
						if t.GetLocal() {
							scope = "local"
						}
						g.Row(t.GetAccessorId(), scope, holdings(t), output.Time(t.GetExpiresAt()), output.Clip(t.GetDescription(), cli.ShownValue))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&request.Policy, "policy", "", "only tokens that have this policy, of their own or by a role")
	cmd.Flags().StringVar(&request.Role, "role", "", "only tokens that have this role")
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func tokenDelete(a *cli.App) *cobra.Command {
	var force bool
	var datacenter string
	cmd := &cobra.Command{
		Use: "delete ACCESSOR", Short: "Revoke a token",
		Long: `Revoke a token. The last management token stays unless forced; without one only the initial management token
file or a bootstrap reset lets anyone in again.`,
		Example: "  konsulctl acl token delete 1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f", Args: cli.Exactly("ACCESSOR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.DeleteToken(ctx, &registryv1.DeleteTokenRequest{AccessorId: args[0], Force: force, Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { g.Line("deleted token %s", args[0]) })
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also the last management token")
	a.DatacenterFlag(cmd, &datacenter, "datacenter of a local token (default: the gateway's)")
	a.RequestIDFlag(cmd)
	return cmd
}
