package kv

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

func txn(a *cli.App) *cobra.Command {
	var datacenter, file string
	var global bool
	request := &registryv1.TxnRequest{}
	cmd := &cobra.Command{
		Use: "txn", Short: "Carry out several operations or none",
		Long: `Carry out several operations or none of them, in one commit.

If every --if and --if-held holds, --get, --set, --delete and --delete-prefix are carried out in the order
in which they are given; if not, --else-get, --else-set, --else-delete and --else-delete-prefix are.
That a comparison does not hold is an answer: the exit code is 0.

A comparison is "KEY exists", "KEY absent", or "KEY WHAT OPERATOR VALUE", where WHAT is value, version,
index (the index of the last change) or created (the index of the first), and OPERATOR is =, !=, < or >.
Of a key that is not there version, index and created are 0, and its value is neither equal nor unequal
to anything: no comparison with value holds. A KEY without local/ or global/ is the datacenter's own, with
--global the federation's; unlike kv get it does not stand for both.

--set takes KEY=VALUE, the value as it stands. A KEY may hold spaces. In --if and --set one that begins with a
double quote, holds what ends it ("=" in --set), or could be taken for a longer comparison stands in double
quotes: --if '"a exists" exists' --set '"a=b"=1'; in them \" is a quote and \\ a backslash.

--file takes the JSON of POST /api/v1/txn instead of all this, "-" from standard input.`,
		Example: `  konsulctl kv txn --if "jobs/next absent" --set jobs/next=1 --else-get jobs/next
  konsulctl kv txn --if "config/app version = 3" --set config/app=v2 --delete config/old
  konsulctl kv txn --if 'my key version = 0' --set 'my key=first'
  konsulctl kv txn --if-held jobs/nightly=1042 --set jobs/nightly/state=done
  konsulctl kv txn --file txn.json -o json`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file != "" {
				given, err := txnFile(a, file)
				if err != nil {
					return err
				}
				request = given
			}
			if len(request.GetSuccess())+len(request.GetFailure()) == 0 {
				return fault.New(fault.InvalidArgument, cli.ReasonUsage, "there is nothing to carry out").
					WithRemedy("give at least one of --get, --set, --delete, --delete-prefix and their --else- forms, or --file; see `konsulctl kv txn --help`")
			}
			if global {
				request.Scope = registryv1.Scope_SCOPE_GLOBAL
			}
			if datacenter != "" {
				request.Datacenter = cli.Named(datacenter)
			}
			request.RequestId = cmp.Or(a.RequestID, request.GetRequestId())
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.KV.Txn(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { txnTable(g, answer) })
			})
		},
	}
	flags := cmd.Flags()
	flags.Func("if", "comparison that must hold; repeatable", func(text string) error {
		c, err := parseCompare(text)
		request.Compare = append(request.Compare, c)
		return err
	})
	flags.Func("if-held", "LOCK=TOKEN that must be held; repeatable", func(text string) error {
		f, err := parseFence(text)
		request.Compare = append(request.Compare, &registryv1.Compare{With: &registryv1.Compare_Held{Held: f}})
		return err
	})
	for prefix, branch := range map[string]*[]*registryv1.TxnOperation{"": &request.Success, "else-": &request.Failure} {
		when := "KEY to %s if every comparison holds; repeatable"
		if prefix != "" {
			when = "KEY to %s if one does not; repeatable"
		}
		for _, kind := range []string{"get", "set", "delete", "delete-prefix"} {
			flags.Func(prefix+kind, fmt.Sprintf(when, strings.ReplaceAll(kind, "-prefix", " with all that begin with it")), func(text string) error {
				op, err := parseOperation(kind, text)
				*branch = append(*branch, op)
				return err
			})
		}
	}
	flags.StringVar(&file, "file", "", "file with the transaction as JSON")
	flags.BoolVar(&global, "global", false, "keys without a scope are global")
	a.RequestIDFlag(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter to carry it out in (default: the gateway's)")
	for _, name := range []string{"if", "if-held", "get", "set", "delete", "delete-prefix", "else-get", "else-set", "else-delete", "else-delete-prefix"} {
		cmd.MarkFlagsMutuallyExclusive("file", name)
	}
	return cmd
}

func txnFile(a *cli.App, path string) (*registryv1.TxnRequest, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = io.ReadAll(a.In)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fault.Invalid("--file", "cannot be read").Wrap(err).WithRemedy("name a file of JSON, or - for standard input")
	}
	request := &registryv1.TxnRequest{}
	if err := protojson.Unmarshal(text, request); err != nil {
		return nil, fault.Invalid("--file", "is no transaction: %s", cli.ProtoText(err)).WithRemedy("write the JSON of POST /api/v1/txn; values are base64")
	}
	return request, nil
}

// comparison is "KEY WHAT OPERATOR VALUE" behind the key; the value is all that follows one space.
const comparison = `[ ]+(value|version|index|created)[ ]+(=|!=|<|>)(?:[ ](.*))?`

var (
	withValue = regexp.MustCompile(`(?s)^(.+?)` + comparison + `$`)
	withState = regexp.MustCompile(`(?s)^(.+?)[ ]+(exists|absent)[ ]*$`)
)

// parseCompare reads a comparison such as "config/app version = 3".
func parseCompare(text string) (*registryv1.Compare, error) {
	none := fault.New(fault.InvalidArgument, cli.ReasonUsage, "%q is no comparison", output.Clip(text, cli.ShownValue)).
		WithRemedy(`write "KEY exists", "KEY absent" or "KEY value|version|index|created =|!=|<|> VALUE"; a KEY that could be taken for more stands in double quotes`)
	text = strings.TrimLeft(text, " ")
	key, rest, quoted, err := quotedKey(text)
	if err != nil {
		return nil, err
	}
	if quoted {
		text = "k" + rest // What is behind the key is read as behind any other.
	}
	c := &registryv1.Compare{}
	if part := withValue.FindStringSubmatch(text); part != nil {
		c.Key, err = part[1], compareWith(c, part[2], part[3], part[4])
	} else if part := withState.FindStringSubmatch(text); part != nil {
		c.Key, c.With = part[1], &registryv1.Compare_Exists{Exists: part[2] == "exists"}
	} else {
		return nil, none
	}
	switch {
	case quoted && c.GetKey() != "k":
		return nil, none
	case quoted:
		c.Key = key
	}
	return c, err
}

// compareWith reads what a key is compared with.
func compareWith(c *registryv1.Compare, what, operator, value string) error {
	c.Operator = map[string]registryv1.Compare_Operator{
		"=": registryv1.Compare_OPERATOR_EQUAL, "!=": registryv1.Compare_OPERATOR_NOT_EQUAL,
		"<": registryv1.Compare_OPERATOR_LESS, ">": registryv1.Compare_OPERATOR_GREATER,
	}[operator]
	if what == "value" {
		c.With = &registryv1.Compare_Value{Value: []byte(value)}
		return nil
	}
	number, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
	if err != nil {
		return fault.New(fault.InvalidArgument, cli.ReasonUsage, "%q is no number to compare the %s with", output.Clip(value, cli.ShownWord), what).
			WithRemedy("write a whole number, 0 or more")
	}
	switch what {
	case "version":
		c.With = &registryv1.Compare_Version{Version: number}
	case "index":
		c.With = &registryv1.Compare_ModifyIndex{ModifyIndex: number}
	case "created":
		c.With = &registryv1.Compare_CreateIndex{CreateIndex: number}
	}
	return nil
}

// quotedKey takes a key in double quotes off the front of a text; in it \" is a quote and \\ a
// backslash.
func quotedKey(text string) (key, rest string, quoted bool, err error) {
	if !strings.HasPrefix(text, `"`) {
		return "", text, false, nil
	}
	var out strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			out.WriteByte(text[i])
		case text[i] == '"':
			return out.String(), text[i+1:], true, nil
		default:
			out.WriteByte(text[i])
		}
	}
	return "", text, true, fault.New(fault.InvalidArgument, cli.ReasonUsage, "%s has no closing quote", output.Clip(text, cli.ShownValue)).
		WithRemedy(`end the key with a double quote; write \" for one that belongs to it`)
}

func parseOperation(kind, text string) (*registryv1.TxnOperation, error) {
	switch kind {
	case "get":
		return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Get{Get: &registryv1.TxnGet{Key: text}}}, nil
	case "delete":
		return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Delete{Delete: &registryv1.TxnDelete{Key: text}}}, nil
	case "delete-prefix":
		return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_DeletePrefix{DeletePrefix: &registryv1.TxnDelete{Key: text}}}, nil
	}
	key, value, quoted, err := quotedKey(text)
	if err != nil {
		return nil, err
	}
	if quoted {
		var assigned bool
		if value, assigned = strings.CutPrefix(value, "="); assigned {
			return setOperation(key, value), nil
		}
	} else if key, value, assigned := strings.Cut(text, "="); assigned {
		return setOperation(key, value), nil
	}
	return nil, fault.New(fault.InvalidArgument, cli.ReasonUsage, "%q is not KEY=VALUE", output.Clip(text, cli.ShownWord)).
		WithRemedy(`write KEY=VALUE; a KEY that holds = or begins with a double quote stands in double quotes: '"a=b"=1'`)
}

func setOperation(key, value string) *registryv1.TxnOperation {
	return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{Key: key, Value: []byte(value)}}}
}

func txnTable(g *output.Grid, answer *registryv1.TxnResponse) {
	outcome := "every comparison holds"
	if !answer.GetSucceeded() {
		outcome = "a comparison does not hold"
	}
	g.Line("%s: %s in %s at index %d", outcome, cli.Count(len(answer.GetResults()), "operation"), answer.GetMeta().GetDatacenter(), answer.GetMeta().GetIndex())
	if len(answer.GetResults()) == 0 {
		return
	}
	g.Row("#", "KEY", "SCOPE", "INDEX", "DELETED", "VALUE")
	for i, r := range answer.GetResults() {
		row := []string{fmt.Sprint(i), "-", "-", "-", fmt.Sprint(r.GetDeleted()), ""}
		if e := r.GetEntry(); e != nil {
			row[1], row[2], row[3], row[5] = e.GetKey(), scopeName(e.GetScope()), fmt.Sprint(e.GetModifyIndex()), output.Clip(output.Cell(string(e.GetValue())), cli.ShownValue)
		}
		g.Row(row...)
	}
}

// fenceFlag is the value of --fence.
type fenceFlag struct{ *registryv1.Fence }

func (f *fenceFlag) add(cmd *cobra.Command) {
	cmd.Flags().Func("fence", "LOCK=TOKEN that must be held", func(text string) (err error) {
		f.Fence, err = parseFence(text)
		return err
	})
}

const fenceRemedy = "write the lock's name, = and the number that acquiring it told, such as jobs/nightly=1042"

func parseFence(text string) (*registryv1.Fence, error) {
	at := strings.LastIndex(text, "=")
	if at < 0 {
		return nil, fault.New(fault.InvalidArgument, cli.ReasonUsage, "%q is not LOCK=TOKEN", text).WithRemedy(fenceRemedy)
	}
	token, err := strconv.ParseUint(text[at+1:], 10, 64)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, cli.ReasonUsage, "%q is no token of a lock", text[at+1:]).WithRemedy(fenceRemedy)
	}
	return &registryv1.Fence{Lock: text[:at], Token: token}, nil
}

func history(a *cli.App) *cobra.Command {
	var datacenter string
	var scope cli.ScopeFlags
	var mode cli.ReadMode
	var limit uint32
	var before uint64
	cmd := &cobra.Command{
		Use: "history KEY", Short: "Show what a key was",
		Long: `Show the versions of a key, the newest first. The registry knows every version written within its
retention window (the last 65,536 commits); of what is older, only the one that stands.
JSON is that of GET /api/v1/kv-history/KEY.`,
		Example: "  konsulctl kv history config/app/version\n  konsulctl kv history config/app/version --limit 10 --before 4711",
		Args:    cli.Exactly("KEY"), ValidArgsFunction: a.CompleteKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.KV.History(ctx, &registryv1.HistoryRequest{
					Key: args[0], Scope: scope.Scope(), Datacenter: cli.Named(datacenter), ReadMode: mode.Mode, Limit: limit, Before: before,
				})
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Row("INDEX", "VERSION", "MODIFIED", "SCOPE", "VALUE")
					for _, v := range answer.GetVersions() {
						e, value := v.GetEntry(), output.Clip(output.Cell(string(v.GetEntry().GetValue())), cli.ShownValue)
						if v.GetDeleted() {
							value = "(deleted)"
						}
						g.Row(fmt.Sprint(e.GetModifyIndex()), fmt.Sprint(e.GetVersion()), output.Time(e.GetModifiedAt()), scopeName(e.GetScope()), value)
					}
				})
			})
		},
	}
	scope.Add(cmd)
	mode.Add(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	cmd.Flags().Uint32Var(&limit, "limit", 0, "how many versions at most (default 100, at most 1000)")
	cmd.Flags().Uint64Var(&before, "before", 0, "only versions older than this index")
	return cmd
}
