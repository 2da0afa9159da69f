package command

import (
	"context"

	"github.com/spf13/cobra"

	"konsul.dev/pkg/konsulfx"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/command/acl"
	"konsul.dev/tools/konsulctl/internal/command/backup"
	"konsul.dev/tools/konsulctl/internal/command/check"
	"konsul.dev/tools/konsulctl/internal/command/cluster"
	"konsul.dev/tools/konsulctl/internal/command/datacenter"
	"konsul.dev/tools/konsulctl/internal/command/kv"
	"konsul.dev/tools/konsulctl/internal/command/lease"
	"konsul.dev/tools/konsulctl/internal/command/lock"
	"konsul.dev/tools/konsulctl/internal/command/node"
	"konsul.dev/tools/konsulctl/internal/command/secret"
	"konsul.dev/tools/konsulctl/internal/command/service"
	"konsul.dev/tools/konsulctl/internal/command/watch"
	"konsul.dev/tools/konsulctl/internal/output"
)

const rootHelp = `konsulctl asks and configures a Konsul federation through the gateway of one datacenter.

It reads these variables; flags win over them:
  KONSUL_ADDR     gateways, https://host:8500, tried in order when there are several, with commas between
  KONSUL_TOKEN    the bearer token; without one the command may do what everybody may
  KONSUL_CA_FILE  the federation's roots (PEM); without it the system's roots are trusted

Answers go to standard output, everything else to standard error. With -o json or -o yaml the
answer is the document that REST gives to the same question, an error the document with which REST
refuses (code, message, reason, field, remedy), on a line of its own, and a note is {"note": "..."}.

An argument that begins with a dash goes behind --, where no flag is looked for:
  konsulctl kv set v/neg -- -5
The value of a flag needs nothing: --note -5. Where VALUE is asked for, - stands for standard input and
@FILE for the content of a file.

Exit codes:
  0  done
  1  failed for a reason below none of the others
  2  wrong usage: flags, arguments, settings, or a value the registry refuses whatever its state
  3  not found
  4  not authenticated, or not permitted
  5  unavailable, or no answer in time
  6  lost a compare-and-set: the key has moved on`

const rootExample = `  . .lab/us-west.env
  konsulctl datacenter list
  konsulctl service get api --all-datacenters
  konsulctl kv set --global config/app/version v2.0
  konsulctl kv get --datacenter eu-central config/app/version
  konsulctl kv set v/neg -- -5
  konsulctl cluster status --all-datacenters`

// Run carries out one command line and returns its exit code. It ends early when ctx does.
func Run(ctx context.Context, env cli.Env, args []string) int {
	return cli.Run(ctx, env, args, root)
}

func root(a *cli.App) *cobra.Command {
	root := &cobra.Command{
		Use: "konsulctl", Short: "Ask and configure a Konsul federation", Long: rootHelp, Example: rootExample,
		SilenceErrors: true, SilenceUsage: true,
	}
	a.RootFlags(root)
	return cli.Group(root,
		acl.Command(a), service.Command(a), node.Command(a), check.Command(a), check.Maintenance(a),
		kv.Command(a), watch.Command(a), lease.Command(a), lock.Command(a),
		cluster.Command(a), cluster.Operator(a), backup.Command(a), datacenter.Command(a), datacenter.Federation(a), secret.Command(a), version(a),
	)
}

func version(a *cli.App) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cli.Exactly(), Example: "  konsulctl version",
		RunE: func(*cobra.Command, []string) error {
			version := konsulfx.Version()
			return a.Print(map[string]string{"version": version}, func(g *output.Grid) { g.Line("konsulctl %s", version) })
		},
	}
}
