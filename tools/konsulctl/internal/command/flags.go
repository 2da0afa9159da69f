package command

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
)

// completionTimeout bounds what a person waits for after the tab key.
const completionTimeout = 2 * time.Second

// datacenterFlag adds --datacenter.
func (a *app) datacenterFlag(cmd *cobra.Command, into *string, help string) {
	cmd.Flags().StringVar(into, "datacenter", "", help)
	must(cmd.RegisterFlagCompletionFunc("datacenter", a.completeDatacenters))
}

// atIndexName is the flag of atIndexFlag.
const atIndexName = "at-index"

// atIndexFlag adds --at-index.
func atIndexFlag(cmd *cobra.Command, into *uint64) {
	cmd.Flags().Uint64Var(into, atIndexName, 0, "the state as of this index, as far back as registry.retention says; 0: the latest")
}

// requestIDFlag adds --request-id to a command that writes once.
func (a *app) requestIDFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.requestID, "request-id", "", "the write's id: made again with the same one, a write is done once (default: a new one)")
}

// named answers the datacenter to put into a request: empty stands for that of the gateway.
func named(datacenter string) string {
	if datacenter == konsul.Local {
		return ""
	}
	return datacenter
}

// scopeFlags adds --global and --local.
type scopeFlags struct{ global, local bool }

func (s *scopeFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.global, "global", false, "the federation's value, written in the primary and replicated to every datacenter")
	cmd.Flags().BoolVar(&s.local, "local", false, "the datacenter's own value, which never leaves it")
	cmd.MarkFlagsMutuallyExclusive("global", "local")
}

func (s *scopeFlags) scope() registryv1.Scope {
	switch {
	case s.global:
		return registryv1.Scope_SCOPE_GLOBAL
	case s.local:
		return registryv1.Scope_SCOPE_LOCAL
	default:
		return registryv1.Scope_SCOPE_UNSPECIFIED
	}
}

// readMode is the value of --read-mode.
type readMode struct{ mode registryv1.ReadMode }

const (
	readModePrefix = "READ_MODE_"
	readModeFlag   = "read-mode"
	staleMode      = "stale"
)

func (m *readMode) add(cmd *cobra.Command) {
	cmd.Flags().Var(m, readModeFlag, "default (the leader answers), stale (any server answers) or linearizable (a quorum confirms the leader)")
	must(cmd.RegisterFlagCompletionFunc(readModeFlag, cobra.FixedCompletions([]string{"default", staleMode, "linearizable"}, cobra.ShellCompDirectiveNoFileComp)))
}

// String implements pflag.Value.
func (m *readMode) String() string {
	if m.mode == registryv1.ReadMode_READ_MODE_UNSPECIFIED {
		return "default"
	}
	return strings.ToLower(strings.TrimPrefix(m.mode.String(), readModePrefix))
}

// Type implements pflag.Value.
func (m *readMode) Type() string { return "mode" }

// Set implements pflag.Value.
func (m *readMode) Set(text string) error {
	number, ok := registryv1.ReadMode_value[readModePrefix+strings.ToUpper(text)]
	if !ok || number == 0 || strings.ToLower(text) != text {
		return fault.New(fault.InvalidArgument, reasonUsage, "%q is no read mode; there are default, stale and linearizable", text)
	}
	m.mode = registryv1.ReadMode(number)
	return nil
}

// pairs is the value of a flag that takes one KEY=VALUE at a time, the value as it stands: commas and quotes are its own.
type pairs map[string]string

// String implements pflag.Value.
func (p *pairs) String() string {
	if p == nil {
		return ""
	}
	return metaOf(*p)
}

// Type implements pflag.Value.
func (p *pairs) Type() string { return "KEY=VALUE" }

// Set implements pflag.Value.
func (p *pairs) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return fault.New(fault.InvalidArgument, reasonUsage, "%q is not KEY=VALUE", text).WithRemedy("write KEY=VALUE, once for each")
	}
	if _, twice := (*p)[key]; twice {
		return fault.New(fault.InvalidArgument, reasonUsage, "%q is given twice", key).WithRemedy("give each key once")
	}
	if *p == nil {
		*p = pairs{}
	}
	(*p)[key] = value
	return nil
}

// protoText returns what is wrong with JSON in protobuf's words, without its name in front.
func protoText(err error) string {
	return strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
}

func (a *app) completeDatacenters(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
		answer, err := api.Datacenters.ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{})
		for _, dc := range answer.GetDatacenters() {
			names = append(names, dc.GetName())
		}
		return names, err
	})
}

func (a *app) completeServices(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
		answer, err := api.Catalog.ListServices(ctx, &registryv1.ListServicesRequest{ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		for _, s := range answer.GetServices() {
			names = append(names, s.GetName())
		}
		return names, err
	})
}

func (a *app) completeKeys(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
		answer, err := api.KV.List(ctx, &registryv1.ListRequest{
			Prefix: begun, KeysOnly: true, Limit: 100, ReadMode: registryv1.ReadMode_READ_MODE_STALE,
		})
		for _, e := range answer.GetEntries() {
			names = append(names, e.GetKey())
		}
		return names, err
	})
}

func (a *app) complete(cmd *cobra.Command, list func(context.Context, konsul.API) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	client, err := a.client(completionTimeout)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer func() { _ = client.Close() }()
	names, err := list(cmd.Context(), client.API())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
