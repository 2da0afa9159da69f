// Package secret has konsulctl's commands that make secrets; they ask nobody.
package secret

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/tools/konsulctl/internal/cli"
)

// secretBytes is the length of a datacenter secret.
const secretBytes = 32

// Command returns the secret command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "secret", Short: "Make datacenter secrets and the keys derived from them",
		Example: "  konsulctl secret generate --out us-east.secret\n" +
			"  konsulctl secret derive --component agent --node web-1 --secret-file us-east.secret --out web-1.key",
	}, generate(a), secretDerive(a))
}

func generate(a *cli.App) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "generate", Short: "Make the secret of a datacenter",
		Long: `Make the secret of a datacenter, 32 random bytes as base64, on this machine: no gateway is asked. It is written
to standard output, or with --out to a new file that only you can read. It stays with you, the registry and the
ca, as their server.secret_file: whoever has it can be any component. Every other component gets a key that is
derived from it: konsulctl secret derive.`,
		Example: "  konsulctl secret generate --out us-east.secret",
		Args:    cli.Exactly(),
		RunE: func(*cobra.Command, []string) error {
			return a.SecretTo(out, func() (string, error) {
				secret := make([]byte, secretBytes)
				if _, err := rand.Read(secret); err != nil {
					return "", fmt.Errorf("read random bytes: %w", err)
				}
				return base64.StdEncoding.EncodeToString(secret), nil
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write the secret to this new file")
	return cmd
}

// deriveFlags are the flags of `secret derive`.
type deriveFlags struct {
	component, node, secretFile, out string
	allNodes                         bool
}

func secretDerive(a *cli.App) *cobra.Command {
	var f deriveFlags
	cmd := &cobra.Command{
		Use: "derive", Short: "Derive the key of one component from the secret of its datacenter",
		Long: `Derive the key of one component from the secret of its datacenter, on this machine: no gateway is asked. The same
secret gives the same key every time. It is written to standard output, or with --out to a new file that only
you can read. Give it to that component as server.secret_file; with it the component gets its first certificate,
and nothing but that. A key of an agent is good for the agent of one node, which is called like its server.node.
The registry and the ca have no such key: they need the secret itself.`,
		Example: "  konsulctl secret derive --component gateway --secret-file us-east.secret --out gateway.key\n" +
			"  konsulctl secret derive --component agent --node web-1 < us-east.secret",
		Args: cli.Exactly(),
		RunE: func(*cobra.Command, []string) error {
			return a.SecretTo(f.out, func() (string, error) { return derive(a, f) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.component, "component", "", "whose key it is: "+strings.Join(identity.KeyComponents(), ", "))
	flags.StringVar(&f.node, "node", "", "the node whose agent the key is for: the server.node of its configuration")
	flags.BoolVar(&f.allNodes, "all-nodes", false, "make a key for the agents of all nodes, where nodes come and go by themselves")
	flags.StringVar(&f.secretFile, "secret-file", "-", "the file of the datacenter secret; - is standard input")
	flags.StringVar(&f.out, "out", "", "write the key to this new file")
	cli.Must(cmd.RegisterFlagCompletionFunc("component", cobra.FixedCompletions(identity.KeyComponents(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// derive returns the text of a component's key.
func derive(a *cli.App, f deriveFlags) (string, error) {
	if err := f.check(); err != nil {
		return "", err
	}
	secret, err := datacenterSecret(a, f.secretFile)
	if err != nil {
		return "", err
	}
	h := identity.Holder{Component: f.component, Node: f.node}
	key, err := identity.DeriveKey(secret, h)
	if err != nil {
		return "", err
	}
	return identity.FormatKey(h, key), nil
}

func (f deriveFlags) check() error {
	known := strings.Join(identity.KeyComponents(), ", ")
	switch {
	case f.component == "registry" || f.component == "ca":
		return fault.Invalid("--component", "the %s needs the datacenter secret itself, and has no key of its own", f.component).
			WithRemedy("name the datacenter secret in its server.secret_file")
	case !slices.Contains(identity.KeyComponents(), f.component):
		return fault.Invalid("--component", "%q is no component with a key of its own", f.component).WithRemedy("use one of " + known)
	case f.component != "agent" && f.node != "":
		return fault.Invalid("--node", "is for agents, not for %s", f.component).WithRemedy("leave it out")
	case f.component != "agent" && f.allNodes:
		return fault.Invalid("--all-nodes", "is for agents, not for %s", f.component).WithRemedy("leave it out")
	case f.node != "" && f.allNodes:
		return fault.Invalid("--all-nodes", "is given together with --node").WithRemedy("give one of them")
	case f.component == "agent" && f.node == "" && !f.allNodes:
		return fault.Invalid("--node", "is missing: an agent's key is for one node").
			WithRemedy("name the node as server.node of its configuration does, or say --all-nodes")
	case f.node != "" && !identity.ValidNode(f.node):
		return fault.Invalid("--node", "%q cannot stand in an agent's certificate", f.node).
			WithRemedy("use letters, digits and inner . _ -, at most 128")
	}
	return nil
}

// mostSecret is far more than a datacenter secret takes.
const mostSecret = 64 << 10

// datacenterSecret reads the datacenter secret from a file or standard input.
func datacenterSecret(a *cli.App, path string) ([]byte, error) {
	const flag = "--secret-file"
	in, name := a.In, "standard input"
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fault.Invalid(flag, "cannot be read").Wrap(err).WithRemedy("name the file that `konsulctl secret generate` made")
		}
		defer func() { _ = file.Close() }()
		in, name = file, path
	}
	text, err := io.ReadAll(io.LimitReader(in, mostSecret))
	if err != nil {
		return nil, fault.Invalid(flag, "cannot be read").Wrap(err)
	}
	credential, err := identity.ParseCredential(name, string(text))
	if err != nil {
		if f, ok := fault.As(err); ok {
			return nil, f.WithField(flag).WithRemedy("name the file that `konsulctl secret generate` made")
		}
		return nil, err
	}
	if !credential.IsSecret() {
		return nil, fault.Invalid(flag, "%q holds a component's key, from which no other can be derived", name).
			WithRemedy("name the file that `konsulctl secret generate` made")
	}
	return credential.Secret("konsulctl")
}
