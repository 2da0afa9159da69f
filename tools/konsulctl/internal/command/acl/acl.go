// Package acl has konsulctl's commands for access control: policies, roles, tokens, and what a
// token may do.
package acl

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/rpc"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the acl command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "acl", Short: "Say who may do what",
		Long: `Say who may do what.

Nothing is allowed unless a rule allows it. Rules are in policies; tokens have policies of their own and by
roles. A rule that denies wins over every rule that allows. Changing policies, roles and tokens takes a
management token, reading them operator:read on acl.

Policies, roles and global tokens are written in the primary and copied to every datacenter; a local token
is known in its own datacenter only.`,
		Example: `  konsulctl acl policy create web --rule 'kv read config/*' --rule 'service write web'
  konsulctl acl token create --policy web --ttl 720h
  konsulctl acl explain --token 5f0c...  kv write config/x`,
	}, bootstrap(a), policy(a), role(a), token(a), explain(a))
}

func bootstrap(a *cli.App) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "bootstrap", Short: "Make the first management token, once in the life of a federation",
		Long: `Make the first management token. It takes no token and works once in the life of a federation, while no
management token exists; not where registry.initial_management_token_file made one.

The secret is shown only this once: written to standard output, or with --out to a new file that only you can
read. Should every management token be lost, the refusal names a reset index: written into the file
acl-bootstrap-reset in the registry's data folder on the primary's leader, it opens the bootstrap once more.`,
		Example: `  konsulctl acl bootstrap --out management.token
  KONSUL_TOKEN=$(konsulctl acl bootstrap -o json | jq -r .secret)`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				return newToken(a, out, func() (shownToken, error) {
					return api.ACL.Bootstrap(ctx, &registryv1.BootstrapRequest{Secret: newSecret()})
				})
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write the secret to this new file")
	return cmd
}

// shownToken is an answer that shows a secret, this once.
type shownToken interface {
	proto.Message
	GetToken() *registryv1.Token
	GetSecret() string
	GetMeta() *registryv1.WriteMeta
}

// newToken shows a new token with its secret, or writes the secret to a file.
func newToken(a *cli.App, out string, produce func() (shownToken, error)) error {
	if out != "" {
		var answer shownToken
		err := a.SecretTo(out, func() (secret string, err error) {
			if answer, err = produce(); err != nil {
				return "", err
			}
			a.Note("token %s in %s; its secret is in %s", answer.GetToken().GetAccessorId(), answer.GetMeta().GetDatacenter(), out)
			return answer.GetSecret(), nil
		})
		if err != nil {
			return err
		}
		return a.PrintWithout("secret", answer)
	}
	answer, err := produce()
	if err != nil {
		return err
	}
	return a.Print(answer, func(g *output.Grid) {
		g.Row("Secret", answer.GetSecret())
		tokenTable(g, answer.GetToken())
		g.Line("")
		g.Line("The secret is shown only this once.")
	})
}

// newSecret makes up the secret of a token. It is made here, so that the call can be repeated when
// its answer is lost.
func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // It never fails: the program ends first.
	return hex.EncodeToString(b)
}

// isAccessor reports whether a text is an accessor id; no secret that is made up looks like one.
func isAccessor(text string) bool {
	return regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`).MatchString(text)
}

func explain(a *cli.App) *cobra.Command {
	var token, datacenter string
	var mode cli.ReadMode
	cmd := &cobra.Command{
		Use: "explain [--token TOKEN] RESOURCE ACCESS [NAME]", Short: "Say whether a token may do something, and why",
		Long: `Say whether a token may do something, and which rules decide. Without --token it is about the token the command
itself carries, about which every token may ask; asking about others takes operator:read on acl.

TOKEN is an accessor id, "anonymous" for requests without a token, or a secret. "@FILE" names a file that holds
the secret and "-" is standard input: so it stays out of process lists and shell histories.

RESOURCE is kv, service, node, intention, federation, operator, backup or agent, ACCESS list, read, write or
delete. A KV key may have its scope in front, local/KEY or global/KEY; a bare one is written and deleted
locally, and read in whichever scope the token may. JSON is that of POST /api/v1/acl/explain.`,
		Example: `  konsulctl acl explain --token 1fe0b4a2-5f0c-4c11-9c58-90bd1d5a3e7f kv write config/x
  konsulctl acl explain --token @app.token service read payment-api
  konsulctl acl explain operator write raft`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			return cli.Exactly("RESOURCE", "ACCESS", "NAME")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &registryv1.ExplainRequest{
				Resource: args[0], Access: args[1], Name: strings.Join(args[2:], ""), Datacenter: cli.Named(datacenter), ReadMode: mode.Mode,
			}
			if err := whose(a, token, request); err != nil {
				return err
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.ACL.Explain(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { explainTable(g, answer) })
			})
		},
	}
	cmd.Flags().StringVar(&token, "token", "", "accessor id, anonymous, or a secret; better @FILE with the secret, or - for standard input")
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	mode.Add(cmd)
	return cmd
}

// whose says in a request which token it is about.
func whose(a *cli.App, token string, request *registryv1.ExplainRequest) error {
	switch {
	case token == "":
	case token == rpc.AnonymousToken:
		request.AccessorId = anonymousAccessor
	case token == "-" || strings.HasPrefix(token, "@"):
		secret, err := a.Value(token)
		if err != nil {
			return fault.Invalid("--token", "the secret cannot be read").Wrap(err)
		}
		if request.Secret = strings.TrimSpace(string(secret)); request.Secret == "" {
			return fault.Invalid("--token", "there is no secret").WithRemedy("give the secret alone, in a file or on standard input")
		}
	case isAccessor(token):
		request.AccessorId = token
	default:
		request.Secret = token
	}
	return nil
}

const anonymousAccessor = "00000000-0000-0000-0000-000000000002"

func explainTable(g *output.Grid, e *registryv1.ExplainResponse) {
	verdict := "denied"
	if e.GetAllowed() {
		verdict = "allowed"
	}
	g.Line("%s: %s for token %s: %s", verdict, e.GetPermission(), cmp.Or(e.GetAccessorId(), "?"), e.GetReason())
	if len(e.GetMatches()) == 0 {
		return
	}
	g.Row("DECIDES", "EFFECT", "POLICY", "RULE", "THROUGH", "DEFINITION")
	for _, m := range e.GetMatches() {
		effect, decides, through := "allows", "", "its own"
		if m.GetDenies() {
			effect = "denies"
		}
		if m.GetDecisive() {
			decides = "yes"
		}
		if m.GetRole() != "" {
			through = "role " + m.GetRole()
		}
		g.Row(decides, effect, m.GetPolicy(), fmt.Sprint(m.GetRule()), through, ruleText(m.GetDefinition()))
	}
}

// ruleText writes a rule as --rule reads it.
func ruleText(r *registryv1.ACLRule) string {
	text := r.GetResource() + " " + strings.Join(r.GetAccess(), ",")
	switch m := r.GetMatch().(type) {
	case *registryv1.ACLRule_Exact:
		text += " exact:" + m.Exact
	case *registryv1.ACLRule_Prefix:
		text += " prefix:" + m.Prefix
	case *registryv1.ACLRule_Glob:
		text += " glob:" + m.Glob
	}
	return text
}

// parseRule reads "RESOURCE ACCESS[,ACCESS...] [PATTERN]"; the pattern is all that follows, spaces
// included.
func parseRule(text string) (*registryv1.ACLRule, error) {
	const remedy = `write "RESOURCE ACCESS[,ACCESS] [PATTERN]", such as 'kv read,delete config/*'; PATTERN may begin with exact:, prefix: or glob:`
	resource, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	access, whole, _ := strings.Cut(strings.TrimSpace(rest), " ")
	whole = strings.TrimSpace(whole)
	if access == "" {
		return nil, fault.Invalid("--rule", "%q is no rule", text).WithRemedy(remedy)
	}
	r := &registryv1.ACLRule{Resource: resource, Access: strings.Split(access, ",")}
	if whole == "" {
		return r, nil
	}
	kind, pattern, explicit := strings.Cut(whole, ":")
	switch {
	case explicit && kind == "exact":
		r.Match = &registryv1.ACLRule_Exact{Exact: pattern}
	case explicit && kind == "prefix":
		r.Match = &registryv1.ACLRule_Prefix{Prefix: pattern}
	case explicit && kind == "glob":
		r.Match = &registryv1.ACLRule_Glob{Glob: pattern}
	case strings.ContainsAny(whole, "*?"):
		r.Match = &registryv1.ACLRule_Glob{Glob: whole}
	default:
		r.Match = &registryv1.ACLRule_Exact{Exact: whole}
	}
	return r, nil
}

// readDefinition reads a definition, "-" being standard input.
func readDefinition(a *cli.App, path string) ([]byte, error) {
	if path == "-" {
		return a.Value(path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Invalid("--file", "cannot be read").Wrap(err).WithRemedy("name a file of YAML or JSON")
	}
	return text, nil
}
