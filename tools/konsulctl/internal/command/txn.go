package command

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/output"
)

func (a *app) kvTxn() *cobra.Command {
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
--set takes KEY=VALUE. --file takes the JSON of POST /api/v1/txn instead of all this, "-" from standard input.`,
		Example: `  konsulctl kv txn --if "jobs/next absent" --set jobs/next=1 --else-get jobs/next
  konsulctl kv txn --if "config/app version = 3" --set config/app=v2 --delete config/old
  konsulctl kv txn --if-held jobs/nightly=1042 --set jobs/nightly/state=done
  konsulctl kv txn --file txn.json -o json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file != "" {
				given, err := a.txnFile(file)
				if err != nil {
					return err
				}
				request = given
			}
			if global {
				request.Scope = registryv1.Scope_SCOPE_GLOBAL
			}
			if datacenter != "" {
				request.Datacenter = named(datacenter)
			}
			request.RequestId = cmp.Or(a.requestID, request.GetRequestId())
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.KV.Txn(ctx, request)
				if err != nil {
					return err
				}
				return a.print(answer, func(g *output.Grid) { txnTable(g, answer) })
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
	a.requestIDFlag(cmd)
	a.datacenterFlag(cmd, &datacenter, "datacenter to carry it out in (default: the gateway's)")
	for _, name := range []string{"if", "if-held", "get", "set", "delete", "delete-prefix", "else-get", "else-set", "else-delete", "else-delete-prefix"} {
		cmd.MarkFlagsMutuallyExclusive("file", name)
	}
	return cmd
}

func (a *app) txnFile(path string) (*registryv1.TxnRequest, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = io.ReadAll(a.In)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fault.Invalid("--file", "cannot be read").Wrap(err)
	}
	request := &registryv1.TxnRequest{}
	if err := protojson.Unmarshal(text, request); err != nil {
		return nil, fault.Invalid("--file", "is no transaction: %s", err.Error()).WithRemedy("write the JSON of POST /api/v1/txn; values are base64")
	}
	return request, nil
}

// parseCompare reads a comparison such as "config/app version = 3".
func parseCompare(text string) (*registryv1.Compare, error) {
	key, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	what, rest, _ := strings.Cut(strings.TrimSpace(rest), " ")
	c := &registryv1.Compare{Key: key}
	if rest == "" && (what == "exists" || what == "absent") {
		c.With = &registryv1.Compare_Exists{Exists: what == "exists"}
		return c, nil
	}
	sign, value, given := strings.Cut(strings.TrimSpace(rest), " ")
	operators := map[string]registryv1.Compare_Operator{
		"=": registryv1.Compare_OPERATOR_EQUAL, "!=": registryv1.Compare_OPERATOR_NOT_EQUAL,
		"<": registryv1.Compare_OPERATOR_LESS, ">": registryv1.Compare_OPERATOR_GREATER,
	}
	operator, known := operators[sign]
	if key == "" || !known || !given && what != "value" {
		return nil, fault.New(fault.InvalidArgument, reasonUsage, `%q is no comparison; write "KEY exists", "KEY absent" or "KEY value|version|index|created =|!=|<|> VALUE"`, text)
	}
	c.Operator = operator
	if what == "value" {
		c.With = &registryv1.Compare_Value{Value: []byte(value)}
		return c, nil
	}
	number, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, reasonUsage, "%q is no number to compare the %s with", value, what)
	}
	switch what {
	case "version":
		c.With = &registryv1.Compare_Version{Version: number}
	case "index":
		c.With = &registryv1.Compare_ModifyIndex{ModifyIndex: number}
	case "created":
		c.With = &registryv1.Compare_CreateIndex{CreateIndex: number}
	default:
		return nil, fault.New(fault.InvalidArgument, reasonUsage, "%q is nothing to compare; there are value, version, index and created", what)
	}
	return c, nil
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
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return nil, fault.New(fault.InvalidArgument, reasonUsage, "%q is not KEY=VALUE", text)
	}
	return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{Key: key, Value: []byte(value)}}}, nil
}

func txnTable(g *output.Grid, answer *registryv1.TxnResponse) {
	outcome := "every comparison holds"
	if !answer.GetSucceeded() {
		outcome = "a comparison does not hold"
	}
	g.Line("%s: %s in %s at index %d", outcome, count(len(answer.GetResults()), "operation"), answer.GetMeta().GetDatacenter(), answer.GetMeta().GetIndex())
	if len(answer.GetResults()) == 0 {
		return
	}
	g.Row("#", "KEY", "SCOPE", "INDEX", "DELETED", "VALUE")
	for i, r := range answer.GetResults() {
		row := []string{fmt.Sprint(i), "-", "-", "-", fmt.Sprint(r.GetDeleted()), ""}
		if e := r.GetEntry(); e != nil {
			row[1], row[2], row[3], row[5] = e.GetKey(), scopeName(e.GetScope()), fmt.Sprint(e.GetModifyIndex()), output.Clip(output.Cell(string(e.GetValue())), shownValue)
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

func parseFence(text string) (*registryv1.Fence, error) {
	at := strings.LastIndex(text, "=")
	if at < 0 {
		return nil, fault.New(fault.InvalidArgument, reasonUsage, "%q is not LOCK=TOKEN", text)
	}
	token, err := strconv.ParseUint(text[at+1:], 10, 64)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, reasonUsage, "%q is no token of a lock", text[at+1:])
	}
	return &registryv1.Fence{Lock: text[:at], Token: token}, nil
}

func (a *app) kvHistory() *cobra.Command {
	var datacenter string
	var scope scopeFlags
	var mode readMode
	var limit uint32
	var before uint64
	cmd := &cobra.Command{
		Use: "history KEY", Short: "Show what a key was",
		Long: `Show the versions of a key, the newest first. The registry knows every version written within its
retention window (the last 65,536 commits); of what is older, only the one that stands.
JSON is that of GET /api/v1/kv-history/KEY.`,
		Example: "  konsulctl kv history config/app/version\n  konsulctl kv history config/app/version --limit 10 --before 4711",
		Args:    exactly("KEY"), ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.KV.History(ctx, &registryv1.HistoryRequest{
					Key: args[0], Scope: scope.scope(), Datacenter: named(datacenter), ReadMode: mode.mode, Limit: limit, Before: before,
				})
				if err != nil {
					return err
				}
				return a.print(answer, func(g *output.Grid) {
					g.Row("INDEX", "VERSION", "MODIFIED", "SCOPE", "VALUE")
					for _, v := range answer.GetVersions() {
						e, value := v.GetEntry(), output.Clip(output.Cell(string(v.GetEntry().GetValue())), shownValue)
						if v.GetDeleted() {
							value = "(deleted)"
						}
						g.Row(fmt.Sprint(e.GetModifyIndex()), fmt.Sprint(e.GetVersion()), output.Time(e.GetModifiedAt()), scopeName(e.GetScope()), value)
					}
				})
			})
		},
	}
	scope.add(cmd)
	mode.add(cmd)
	a.datacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	cmd.Flags().Uint32Var(&limit, "limit", 0, "how many versions at most (default 100, at most 1000)")
	cmd.Flags().Uint64Var(&before, "before", 0, "only versions older than this index")
	return cmd
}
