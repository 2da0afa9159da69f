package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/rpc"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Env is the world around a command.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// Lookup answers environment variables.
	Lookup func(name string) (value string, ok bool)
}

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

// app is one run of konsulctl.
type app struct {
	Env
	addr, tokenFile, caFile string
	timeout                 time.Duration
	format                  output.Format
	// requestID is that of the command's write; empty: a new one.
	requestID string
	// stale says that any server may answer, so that an answer has to tell how old it is.
	stale bool
	// started tells errors of a command from errors of its command line.
	started bool
}

// Run carries out one command line and answers its exit code. It ends early when ctx does.
func Run(ctx context.Context, env Env, args []string) int {
	a := &app{Env: env, format: output.Table}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if _, ok := fault.As(err); !ok && !a.started {
		// From cobra itself, which knows no remedy.
		err = badFlags(cmd, err)
	}
	if !a.started {
		a.format.Find(args) // The flag that says so may stand behind the one that was refused.
	}
	err = asTyped(cmd, err)
	a.report(err)
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "konsulctl", Short: "Ask and configure a Konsul federation", Long: rootHelp, Example: rootExample,
		SilenceErrors: true, SilenceUsage: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.addr, "addr", "", "gateways to ask, https://host:8500 (default $"+konsul.EnvAddr+")")
	flags.StringVar(&a.tokenFile, "token-file", "", "file with the bearer token (default: the token in $"+konsul.EnvToken+")")
	flags.StringVar(&a.caFile, "ca-file", "", "PEM file with the federation's roots (default $"+konsul.EnvCAFile+")")
	flags.DurationVar(&a.timeout, "timeout", konsul.DefaultTimeout, "how long a call may take, its retries included")
	flags.VarP(&a.format, "output", "o", "table, json or yaml")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Formats(), cobra.ShellCompDirectiveNoFileComp)))
	root.SetFlagErrorFunc(badFlag)
	group(root)
	root.AddCommand(a.acl(), a.service(), a.node(), a.check(), a.maintenance(), a.kv(), a.watch(), a.lease(), a.lock(), a.cluster(), a.operator(), a.backup(), a.datacenter(), a.federation(), a.secret(), a.version())
	a.markStart(root)
	return root
}

// markStart makes every command say when its command line has been accepted.
func (a *app) markStart(cmd *cobra.Command) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.started = true
		mode := cmd.Flags().Lookup(readModeFlag)
		a.stale = mode != nil && mode.Value.String() == staleMode
		return run(cmd, args)
	}
	for _, child := range cmd.Commands() {
		a.markStart(child)
	}
}

// group makes a command that only has subcommands: alone it shows its help, with a stray word it fails.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("unknown command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += "; did you mean " + strings.Join(near, " or ") + "?"
		}
		return usage(cmd, errors.New(text))
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(children...)
	return cmd
}

// exactly takes n arguments, named for the error.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage(cmd, fmt.Errorf("%s is missing", strings.Join(names[len(args):], " and ")))
		case len(args) > len(names):
			return usage(cmd, fmt.Errorf("too many arguments from %q on", args[len(names)]))
		}
		return nil
	}
}

// call runs what a command does with a client, and closes it.
func (a *app) call(cmd *cobra.Command, do func(ctx context.Context, api konsul.API) error) (err error) {
	client, err := a.client(a.timeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return do(konsul.WithRequestID(cmd.Context(), a.requestID), client.API())
}

func (a *app) client(timeout time.Duration) (*konsul.Client, error) {
	if timeout <= 0 {
		return nil, fault.Invalid("--timeout", "%s is no time to wait", timeout).WithRemedy("write a duration such as 10s")
	}
	var token string
	if a.tokenFile != "" {
		text, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return nil, fault.Invalid("--token-file", "cannot be read").Wrap(err).WithRemedy("name a file that holds the token alone")
		}
		if token = strings.TrimSpace(string(text)); token == "" {
			return nil, fault.Invalid("--token-file", "%s is empty", a.tokenFile).WithRemedy("name a file that holds the token alone")
		}
	}
	if fromEnv, _ := a.Lookup(konsul.EnvToken); token == "" && strings.TrimSpace(fromEnv) == "" {
		token = rpc.AnonymousToken // What everybody may do is for the registry to say.
	}
	flags := map[string]string{konsul.EnvAddr: a.addr, konsul.EnvToken: token, konsul.EnvCAFile: a.caFile}
	cfg, err := konsul.ConfigFromLookup(func(name string) (string, bool) {
		fromEnv, ok := a.Lookup(name)
		return cmp.Or(flags[name], fromEnv), ok || flags[name] != ""
	})
	if err != nil {
		return nil, inFlagTerms(err, flags)
	}
	cfg.Timeout = timeout
	return konsul.New(cfg)
}

// inFlagTerms names the flag instead of the variable where the flag was given, and as the other way out where not.
func inFlagTerms(err error, given map[string]string) error {
	names := map[string]string{konsul.EnvAddr: "--addr", konsul.EnvToken: "--token-file", konsul.EnvCAFile: "--ca-file"}
	var errs []error
	for _, err := range leaves(err) {
		f, ok := fault.As(err)
		if !ok {
			errs = append(errs, err)
			continue
		}
		flag, known := names[f.Field()]
		switch {
		case known && given[f.Field()] != "":
			f = f.WithField(flag)
		case known:
			f = f.WithRemedy("set the variable or " + flag + ": " + f.Remedy())
		}
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// print writes an answer. A table says what its document says in meta: how old it is, and that rows were left out.
func (a *app) print(document any, table func(*output.Grid)) error {
	meta := readMeta(document)
	if meta.GetResultsFiltered() && a.format == output.Table {
		a.note("rows may be missing here: the token may not read all of them")
	}
	return a.format.Write(a.Out, document, func(g *output.Grid) {
		table(g)
		if age := a.age(meta); age != "" {
			g.Line("%s", age)
		}
	})
}

// readMeta returns what an answer says of itself; nil: nothing.
func readMeta(document any) *registryv1.QueryMeta {
	if answer, ok := document.(interface{ GetMeta() *registryv1.QueryMeta }); ok {
		return answer.GetMeta()
	}
	return nil
}

// oldCopy is from when on a copy of the primary's records is older than a healthy one ever is.
const oldCopy = 5 * time.Second

// age says how old an answer is: if any server was allowed to give it, and of a copy that has fallen behind; else nothing.
func (a *app) age(meta *registryv1.QueryMeta) string {
	if meta == nil {
		return ""
	}
	var said []string
	if a.stale {
		contact := (time.Duration(meta.GetLastContactMs()) * time.Millisecond).String()
		said = append(said, "stale read: the server heard from its leader "+contact+" ago")
		if !meta.GetKnownLeader() {
			said = append(said, "it knows none now")
		}
	}
	if age := meta.GetCopyAge(); age != nil && (a.stale || age.AsDuration() > oldCopy) {
		said = append(said, "this copy of the primary's records is "+age.AsDuration().Round(100*time.Millisecond).String()+" old")
	}
	return strings.Join(said, "; ")
}

// note tells a person something beside the answer.
func (a *app) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.format != output.Table {
		a.beside(map[string]string{"note": text})
		return
	}
	_, _ = fmt.Fprintln(a.Err, "konsulctl: "+output.Printable(text))
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactly(), Example: "  konsulctl version",
		RunE: func(*cobra.Command, []string) error {
			version := konsulfx.Version()
			return a.print(map[string]string{"version": version}, func(g *output.Grid) { g.Line("konsulctl %s", version) })
		},
	}
}

// must is for registrations that only fail when this package is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
