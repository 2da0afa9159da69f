// Package kv has konsulctl's commands for keys: reading, writing, transactions and history.
package kv

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the kv command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "kv", Short: "Read and write keys",
		Long: `Read and write keys.

A key belongs to one datacenter (local) or to the federation (global). A bare key is read from the
datacenter's own values first, then from the global ones; a bare write is local. --global and --local
force one, and so do keys written in full, global/KEY and local/KEY.`,
		Example: `  konsulctl kv set --global config/app/version v2.0
  konsulctl kv get config/app/version`,
	}, get(a), set(a), list(a), remove(a), txn(a), history(a))
}

func get(a *cli.App) *cobra.Command {
	var datacenter string
	var scope cli.ScopeFlags
	var mode cli.ReadMode
	var raw bool
	var at uint64
	cmd := &cobra.Command{
		Use: "get KEY", Short: "Read a key",
		Long: `Read a key, with the scope and the datacenter that answered. --raw writes the value alone, byte for byte.
JSON is that of GET /api/v1/kv/KEY, where the value is base64.`,
		Example: `  konsulctl kv get config/app/version
  konsulctl kv get --datacenter eu-central config/app/version
  konsulctl kv get --raw config/tls.pem > tls.pem
  konsulctl kv get --at-index 4711 config/app/version`,
		Args: cli.Exactly("KEY"), ValidArgsFunction: a.CompleteKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.KV.Get(ctx, &registryv1.GetRequest{
					Key: args[0], Scope: scope.Scope(), Datacenter: cli.Named(datacenter), ReadMode: mode.Mode, AtIndex: at,
				})
				if err != nil {
					return err
				}
				if raw {
					if age := a.Age(answer.GetMeta()); age != "" {
						a.Note("%s", age)
					}
					_, err := a.Out.Write(answer.GetEntry().GetValue())
					return err
				}
				return a.Print(answer, func(g *output.Grid) { entryTable(g, answer.GetEntry(), answer.GetMeta().GetDatacenter()) })
			})
		},
	}
	scope.Add(cmd)
	mode.Add(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	cli.AtIndexFlag(cmd, &at)
	cmd.Flags().BoolVar(&raw, "raw", false, "write the value alone")
	return cmd
}

func entryTable(g *output.Grid, e *registryv1.Entry, datacenter string) {
	g.Row("Key", e.GetKey())
	g.Row("Value", string(e.GetValue()))
	g.Row("Scope", scopeName(e.GetScope()))
	g.Row("Datacenter", datacenter)
	g.Row("Written in", e.GetOriginDatacenter())
	g.Row("Modified", output.Time(e.GetModifiedAt()))
	g.Row("Index", fmt.Sprint(e.GetModifyIndex()))
	g.Row("Version", fmt.Sprint(e.GetVersion()))
	if e.GetFlags() != 0 {
		g.Row("Flags", fmt.Sprint(e.GetFlags()))
	}
	if len(e.GetMeta()) > 0 {
		g.Row("Meta", cli.MetaOf(e.GetMeta()))
	}
	if e.GetLease() != "" {
		g.Row("Lease", e.GetLease())
	}
}

func set(a *cli.App) *cobra.Command {
	var datacenter string
	var scope cli.ScopeFlags
	var cas, keep uint64
	var lease string
	var meta map[string]string
	var fence fenceFlag
	cmd := &cobra.Command{
		Use: "set KEY VALUE", Short: "Write a key",
		Long: `Write a key. VALUE "-" is standard input, "@FILE" the content of a file (write "@@..." for a value that
begins with "@"). A VALUE that begins with a dash goes behind --, as in: kv set v/neg -- -5. With --cas the write happens only if the key's index is the one given, 0 meaning that
the key is absent; otherwise it fails with exit code 6. With --lease the key is deleted when that lease
ends; with --fence the write happens only while the lock is held with that token.

Whoever does not hear whether a write was done repeats it with the same --request-id: it is done once, and the first
outcome is answered. The same id with another write is refused.`,
		Example: `  konsulctl kv set --global config/app/version v2.0
  konsulctl kv set --lease 7a1c0a5e --meta owner=web presence/web-1 up
  konsulctl kv set --fence jobs/nightly=1042 jobs/nightly/state done
  konsulctl kv set --datacenter us-east config/local/db_url "postgresql://us-db:5432/app"
  konsulctl kv set --cas 42 config/app/version v2.1
  konsulctl kv set --request-id "$(uuidgen)" config/app/version v2.1
  konsulctl kv set config/tls.pem @tls.pem
  konsulctl kv set config/tls.pem -- "$(cat tls.pem)"
  date | konsulctl kv set deployed-at -`,
		Args: cli.Exactly("KEY", "VALUE"), ValidArgsFunction: a.CompleteKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.Value(args[1])
			if err != nil {
				return err
			}
			request := &registryv1.SetRequest{
				Key: args[0], Value: value, Scope: scope.Scope(), Datacenter: cli.Named(datacenter), Flags: keep,
				Lease: lease, Meta: meta, Fence: fence.Fence,
			}
			if cmd.Flags().Changed("cas") {
				request.Cas = proto.Uint64(cas)
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.KV.Set(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					e, meta := answer.GetEntry(), answer.GetMeta()
					g.Line("set %s (%s) in %s at index %d", e.GetKey(), scopeName(e.GetScope()), meta.GetDatacenter(), e.GetModifyIndex())
				})
			})
		},
	}
	scope.Add(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter to write in (default: the gateway's)")
	cmd.Flags().Uint64Var(&cas, "cas", 0, "write only if the key's index is this; 0: only if the key is absent")
	cmd.Flags().Uint64Var(&keep, "flags", 0, "a number to keep with the value, for your own use")
	cmd.Flags().Var((*cli.Pairs)(&meta), "meta", "NAME=VALUE to keep with the value, for your own use; repeatable")
	cmd.Flags().StringVar(&lease, "lease", "", "delete the key when this lease ends")
	a.RequestIDFlag(cmd)
	fence.add(cmd)
	return cmd
}

func list(a *cli.App) *cobra.Command {
	var datacenter string
	var scope cli.ScopeFlags
	var mode cli.ReadMode
	var keysOnly bool
	var separator string
	var at uint64
	cmd := &cobra.Command{
		Use: "list [PREFIX]", Short: "List keys",
		Long: `List the keys that begin with a prefix, in order; without a prefix all of them. Long values are cut short in
the table. With --separator what lies behind the next separator is shown as one folder.
JSON is that of GET /api/v1/kv, all its pages in one.`,
		Example: "  konsulctl kv list\n  konsulctl kv list config/ --keys --separator /\n  konsulctl kv list config/ --global\n  konsulctl kv list config/ --keys -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return cli.Exactly("PREFIX")(cmd, args)
		},
		ValidArgsFunction: a.CompleteKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &registryv1.ListRequest{
				Prefix: strings.Join(args, ""), Scope: scope.Scope(), Datacenter: cli.Named(datacenter), ReadMode: mode.Mode, KeysOnly: keysOnly, Separator: separator, AtIndex: at,
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := listAll(ctx, api, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) { listTable(g, answer, keysOnly) })
			})
		},
	}
	scope.Add(cmd)
	mode.Add(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter to ask (default: the gateway's)")
	cli.AtIndexFlag(cmd, &at)
	cmd.Flags().BoolVar(&keysOnly, "keys", false, "leave the values out")
	cmd.Flags().StringVar(&separator, "separator", "", "show keys with this behind the prefix as folders")
	return cmd
}

// listAll returns every page as one.
func listAll(ctx context.Context, api konsul.API, request *registryv1.ListRequest) (*registryv1.ListResponse, error) {
	all, err := api.KV.List(ctx, request)
	if err != nil {
		return nil, err
	}
	for all.GetNextPageToken() != "" {
		request.PageToken = all.GetNextPageToken()
		page, err := api.KV.List(ctx, request)
		if err != nil {
			return nil, err
		}
		all.Entries, all.NextPageToken = append(all.Entries, page.GetEntries()...), page.GetNextPageToken()
		all.Folders = append(all.Folders, page.GetFolders()...)
		if page.GetMeta().GetResultsFiltered() && all.GetMeta() != nil {
			all.Meta.ResultsFiltered = true
		}
	}
	return all, nil
}

func listTable(g *output.Grid, answer *registryv1.ListResponse, keysOnly bool) {
	header := []string{"KEY", "SCOPE", "INDEX", "VERSION", "MODIFIED"}
	if !keysOnly {
		header = append(header, "VALUE")
	}
	g.Row(header...)
	for _, folder := range answer.GetFolders() {
		g.Row(append([]string{folder}, make([]string, len(header)-1)...)...)
	}
	for _, e := range answer.GetEntries() {
		row := []string{e.GetKey(), scopeName(e.GetScope()), fmt.Sprint(e.GetModifyIndex()), fmt.Sprint(e.GetVersion()), output.Time(e.GetModifiedAt())}
		if !keysOnly {
			row = append(row, output.Clip(output.Cell(string(e.GetValue())), cli.ShownValue))
		}
		g.Row(row...)
	}
}

func remove(a *cli.App) *cobra.Command {
	var datacenter string
	var scope cli.ScopeFlags
	var cas uint64
	var recurse bool
	var fence fenceFlag
	cmd := &cobra.Command{
		Use: "delete KEY", Short: "Delete a key, or all below a prefix",
		Long: `Delete a key, or with --recurse every key that begins with KEY. Deleting what is not there is no error.
With --cas the key is deleted only if its index is the one given; otherwise it fails with exit code 6. With
--fence it is deleted only while the lock is held with that token.`,
		Example: "  konsulctl kv delete config/app/version\n  konsulctl kv delete --global --recurse config/feature_flags/\n  konsulctl kv delete --fence jobs/nightly=1042 jobs/nightly/state",
		Args:    cli.Exactly("KEY"), ValidArgsFunction: a.CompleteKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &registryv1.DeleteRequest{Key: args[0], Scope: scope.Scope(), Datacenter: cli.Named(datacenter), Recurse: recurse, Fence: fence.Fence}
			if cmd.Flags().Changed("cas") {
				request.Cas = proto.Uint64(cas)
			}
			return a.Call(cmd, func(ctx context.Context, api konsul.API) error {
				answer, err := api.KV.Delete(ctx, request)
				if err != nil {
					return err
				}
				return a.Print(answer, func(g *output.Grid) {
					g.Line("deleted %s in %s", cli.Count(int(answer.GetDeleted()), "key"), answer.GetMeta().GetDatacenter())
				})
			})
		},
	}
	scope.Add(cmd)
	a.DatacenterFlag(cmd, &datacenter, "datacenter to delete in (default: the gateway's)")
	cmd.Flags().Uint64Var(&cas, "cas", 0, "delete only if the key's index is this")
	cmd.Flags().BoolVar(&recurse, "recurse", false, "delete every key that begins with KEY")
	a.RequestIDFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("cas", "recurse")
	fence.add(cmd)
	return cmd
}

func scopeName(s registryv1.Scope) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "SCOPE_"))
}
