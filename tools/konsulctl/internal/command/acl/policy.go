package acl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

func policy(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "policy", Short: "Keep policies: rules under a name",
		Long: `Keep policies: rules under a name.

A rule names a resource, what it matches and the access it grants:

  access   implies       lets the holder
  list                   see that a thing is there: its name
  read     list          see what it holds
  write    list, read    make and change it
  delete   list          remove it
  deny     -             nothing, whatever other rules allow

A file is YAML or JSON:

  description: what the web servers need
  rules:
    - {resource: kv, prefix: config/, access: read}
    - {resource: kv, glob: "config/*/secret", access: deny}
    - {resource: service, exact: web, access: [write, delete]}
    - {resource: node, access: read}

A rule without exact, prefix or glob is about everything of its resource. In a glob "*" stands for any run of
characters but "/", "**" for any run, "?" for one character but "/". A KV pattern that begins with local/ or
global/ is good in that scope, any other one in both. Consul's policies, in HCL or JSON, are not read.`,
		Example: "  konsulctl acl policy create web --file web.yaml\n  konsulctl acl policy list",
	}, policyPut(a, true), policyPut(a, false), policyGet(a), policyList(a), policyDelete(a))
}

// policyPut creates a policy, or changes what was given of one.
func policyPut(a *cli.App, fresh bool) *cobra.Command {
	var file, description string
	var ruleTexts []string
	var cas uint64
	cmd := &cobra.Command{
		Args: cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			given := &registryv1.ACLPolicy{Name: args[0], Description: description}
			described, ruled := cmd.Flags().Changed("description"), len(ruleTexts) > 0
			if file != "" {
				text, err := readDefinition(a, file)
				if err != nil {
					return err
				}
				parsed, err := parsePolicyFile(text)
				if err != nil {
					return err
				}
				if parsed.name != "" && parsed.name != args[0] {
					return fault.Invalid("NAME", "is %q, in the file it is %q", args[0], parsed.name).WithRemedy("leave the name out of the file")
				}
				if given.Rules, ruled = parsed.rules, true; parsed.description != nil && !described {
					given.Description, described = *parsed.description, true
				}
			}
			for _, text := range ruleTexts {
				rule, err := parseRule(text)
				if err != nil {
					return err
				}
				given.Rules = append(given.Rules, rule)
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				if fresh {
					answer, err := api.ACL.CreatePolicy(ctx, &registryv1.CreatePolicyRequest{Policy: given})
					if err != nil {
						return err
					}
					return a.Print(answer, func(g *output.Grid) { policyTable(g, answer.GetPolicy()) })
				}
				request := &registryv1.UpdatePolicyRequest{Policy: given}
				if cmd.Flags().Changed("cas") {
					request.Cas = &cas
				}
				if !described || !ruled {
					old, err := api.ACL.GetPolicy(ctx, &registryv1.GetPolicyRequest{Name: args[0]})
					if err != nil {
						return err
					}
					if !described {
						given.Description = old.GetPolicy().GetDescription()
					}
					if !ruled {
						given.Rules = old.GetPolicy().GetRules()
					}
				}
				answer, err := api.ACL.UpdatePolicy(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { policyTable(g, answer.GetPolicy()) })
			})
		},
	}
	a.RequestIDFlag(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&file, "file", "f", "", "file of YAML or JSON; - for standard input")
	flags.StringVar(&description, "description", "", "what it is for")
	flags.StringArrayVar(&ruleTexts, "rule", nil, `"RESOURCE ACCESS[,ACCESS] [PATTERN]" (repeatable, added to those of the file)`)
	cli.Must(cmd.MarkFlagFilename("file", "yaml", "yml", "json"))
	if fresh {
		cmd.Use, cmd.Short = "create NAME", "Make a policy"
		cmd.Long = "Make a policy. JSON is that of POST /api/v1/acl/policies."
		cmd.Example = "  konsulctl acl policy create web --file web.yaml\n  konsulctl acl policy create reader --rule 'kv read prefix:config/' --rule 'service read'"
		return cmd
	}
	flags.Uint64Var(&cas, "cas", 0, "write only if the primary's index of the policy is this")
	cmd.Use, cmd.Short = "update NAME", "Change a policy"
	cmd.Long = "Change a policy. Rules that are given replace all there were; what is not given stays.\nJSON is that of PUT /api/v1/acl/policies/NAME."
	cmd.Example = "  konsulctl acl policy update web --file web.yaml\n  konsulctl acl policy update web --description 'the web servers'"
	return cmd
}

func policyTable(g *output.Grid, p *registryv1.ACLPolicy) {
	g.Row("Policy", p.GetName())
	g.Row("Description", p.GetDescription())
	g.Row("Index", fmt.Sprint(p.GetModifyIndex()))
	g.Line("")
	g.Row("RULE", "RESOURCE", "ACCESS", "MATCHES")
	for i, r := range p.GetRules() {
		matches := "everything"
		switch m := r.GetMatch().(type) {
		case *registryv1.ACLRule_Exact:
			matches = m.Exact
		case *registryv1.ACLRule_Prefix:
			matches = "prefix " + m.Prefix
		case *registryv1.ACLRule_Glob:
			matches = "glob " + m.Glob
		}
		g.Row(fmt.Sprint(i), r.GetResource(), strings.Join(r.GetAccess(), ","), matches)
	}
}

func policyGet(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a policy", Long: "Show a policy. JSON is that of GET /api/v1/acl/policies/NAME.",
		Example: "  konsulctl acl policy get web", Args: cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.GetPolicy(ctx, &registryv1.GetPolicyRequest{Name: args[0], Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { policyTable(g, answer.GetPolicy()) })
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func policyList(a *cli.App) *cobra.Command {
	var datacenter string
	cmd := &cobra.Command{
		Use: "list", Short: "List the policies", Long: "List the policies. JSON is that of GET /api/v1/acl/policies.",
		Example: "  konsulctl acl policy list", Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.ListPolicies(ctx, &registryv1.ListPoliciesRequest{Datacenter: cli.Named(datacenter)})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("POLICY", "RULES", "INDEX", "DESCRIPTION")
					for _, p := range answer.GetPolicies() {
						g.Row(p.GetName(), fmt.Sprint(len(p.GetRules())), fmt.Sprint(p.GetModifyIndex()), output.Clip(p.GetDescription(), cli.ShownValue))
					}
				})
			})
		},
	}
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	return cmd
}

func policyDelete(a *cli.App) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a policy",
		Long: `Delete a policy. It is refused while a role or token that the primary knows has it, unless forced: they lose
then what it grants. Tokens keep the name: a new policy of that name is theirs again.`,
		Example: "  konsulctl acl policy delete web", Args: cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.DeletePolicy(ctx, &registryv1.DeletePolicyRequest{Name: args[0], Force: force})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { g.Line("deleted policy %s", args[0]) })
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while roles or tokens have it")
	a.RequestIDFlag(cmd)
	return cmd
}
