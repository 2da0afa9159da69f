// Package watch has konsulctl's commands that follow a key or a service until they are interrupted.
package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"konsul.dev/pkg/konsul"
	"konsul.dev/tools/konsulctl/internal/cli"
	"konsul.dev/tools/konsulctl/internal/output"
)

// Command returns the watch command.
func Command(a *cli.App) *cobra.Command {
	return cli.Group(&cobra.Command{
		Use: "watch", Short: "Follow keys and services as they change",
		Long: `Follow keys and services as they change, until interrupted.

With -o json every change is a line of its own. A watch goes on by itself when a server or gateway stops; --index goes on
where an earlier one ended.`,
		Example: `  konsulctl watch kv config/app/version
  konsulctl watch service api -o json`,
	}, watchKV(a), watchService(a))
}

func watchKV(a *cli.App) *cobra.Command {
	var opts konsul.WatchOptions
	cmd := &cobra.Command{
		Use: "kv KEY", Short: "Follow a key, or all keys below a prefix",
		Long: `Follow a key, or with --prefix all keys that begin with KEY ("" is every key). The present state comes first. A key that
is written faster than it can be shown is shown with its last value.`,
		Example: `  konsulctl watch kv config/app/version
  konsulctl watch kv --prefix config/ -o json | jq -r .key
  konsulctl watch kv --index 4711 config/app/version`,
		Args: cli.Exactly("KEY"), ValidArgsFunction: a.CompleteKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			return follow(a, cmd, func(ctx context.Context, client *konsul.Client) error {
				return client.Watch.KV(ctx, args[0], &opts, func(c *konsul.KVChange) error { return showKV(a, c) })
			})
		},
	}
	cmd.Flags().BoolVar(&opts.Prefix, "prefix", false, "follow all keys that begin with KEY")
	watchFlags(a, cmd, &opts)
	return cmd
}

// kvLine is a line of `watch kv -o json`.
type kvLine struct {
	Event string `json:"event"` // "reset", "set" or "delete"
	Key   string `json:"key,omitempty"`
	Scope string `json:"scope,omitempty"`
	// Value is base64, as in REST.
	Value []byte `json:"value,omitempty"`
	Index uint64 `json:"index"`
}

func showKV(a *cli.App, c *konsul.KVChange) error {
	var lines []kvLine
	if c.Reset {
		lines = append(lines, kvLine{Event: "reset", Index: c.Index})
	}
	for _, e := range c.Entries {
		lines = append(lines, kvLine{Event: "set", Key: e.Key, Scope: string(e.Scope), Value: e.Value, Index: e.ModifyIndex})
	}
	for _, key := range c.Deleted {
		scope, bare, _ := strings.Cut(key, "/")
		lines = append(lines, kvLine{Event: "delete", Key: bare, Scope: scope, Index: c.Index})
	}
	for _, l := range lines {
		if l.Event == "reset" && a.Format == output.Table {
			continue
		}
		if err := line(a, l, "%d\t%s\t%s/%s\t%s", l.Index, l.Event, l.Scope, l.Key, string(l.Value)); err != nil {
			return err
		}
	}
	return nil
}

func watchService(a *cli.App) *cobra.Command {
	var opts konsul.WatchOptions
	cmd := &cobra.Command{
		Use: "service NAME", Short: "Follow the instances of a service",
		Long:    `Follow the healthy instances of a service: all of them at first, and all of them again whenever one changed.`,
		Example: "  konsulctl watch service api\n  konsulctl watch service --all-status api -o json",
		Args:    cli.Exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return follow(a, cmd, func(ctx context.Context, client *konsul.Client) error {
				return client.Watch.Service(ctx, args[0], &opts, func(c *konsul.ServiceChange) error { return showService(a, c) })
			})
		},
	}
	cmd.Flags().BoolVar(&opts.IncludeUnhealthy, "all-status", false, "also instances that are not passing")
	cmd.Flags().StringArrayVar(&opts.Tags, "tag", nil, "only instances with this tag; may be given several times")
	watchFlags(a, cmd, &opts)
	return cmd
}

// serviceLine is a line of `watch service -o json`.
type serviceLine struct {
	Index     uint64         `json:"index"`
	Instances []instanceLine `json:"instances"`
}

type instanceLine struct {
	ID       string `json:"id"`
	Node     string `json:"node"`
	Endpoint string `json:"endpoint"`
	Status   string `json:"status"`
}

func showService(a *cli.App, c *konsul.ServiceChange) error {
	document := serviceLine{Index: c.Index, Instances: make([]instanceLine, 0, len(c.Instances))}
	words := make([]string, 0, len(c.Instances))
	for _, s := range c.Instances {
		document.Instances = append(document.Instances, instanceLine{ID: s.ID, Node: s.Node, Endpoint: s.Endpoint(), Status: string(s.Status)})
		words = append(words, fmt.Sprintf("%s=%s(%s)", s.ID, s.Endpoint(), s.Status))
	}
	return line(a, document, "%d\t%d instances\t%s", c.Index, len(words), strings.Join(words, " "))
}

func watchFlags(a *cli.App, cmd *cobra.Command, opts *konsul.WatchOptions) {
	a.DatacenterFlag(cmd, &opts.Datacenter, "datacenter to ask (default: the gateway's)")
	cmd.Flags().Uint64Var(&opts.Index, "index", 0, "go on after this index; 0: the present state first")
}

// follow watches until the command is interrupted, which is how it is meant to end.
func follow(a *cli.App, cmd *cobra.Command, watch func(context.Context, *konsul.Client) error) error {
	client, err := a.Client(a.Timeout)
	if err != nil {
		return err
	}
	err = watch(cmd.Context(), client)
	if cmd.Context().Err() != nil {
		err = nil
	}
	if closing := client.Close(); err == nil {
		err = closing
	}
	return err
}

// line writes one change at once: a JSON document, a YAML document, or words with tabs between,
// each fit for a terminal.
func line(a *cli.App, document any, format string, args ...any) error {
	switch a.Format {
	case output.JSON:
		return json.NewEncoder(a.Out).Encode(document)
	case output.YAML:
		if _, err := fmt.Fprintln(a.Out, "---"); err != nil {
			return err
		}
		return a.Print(document, nil)
	}
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = output.Cell(text)
		}
	}
	_, err := fmt.Fprintf(a.Out, format+"\n", args...)
	return err
}
