package cli

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

// DatacenterFlag adds --datacenter.
func (a *App) DatacenterFlag(cmd *cobra.Command, into *string, help string) {
	cmd.Flags().StringVar(into, "datacenter", "", help)
	Must(cmd.RegisterFlagCompletionFunc("datacenter", a.CompleteDatacenters))
}

// AtIndexName is the flag of atIndexFlag.
const AtIndexName = "at-index"

// AtIndexFlag adds --at-index.
func AtIndexFlag(cmd *cobra.Command, into *uint64) {
	cmd.Flags().Uint64Var(into, AtIndexName, 0, "the state as of this index, as far back as registry.retention says; 0: the latest")
}

// RequestIDFlag adds --request-id to a command that writes once.
func (a *App) RequestIDFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.RequestID, "request-id", "", "the write's id: made again with the same one, a write is done once (default: a new one)")
}

// Named returns the datacenter to put into a request: empty stands for that of the gateway.
func Named(datacenter string) string {
	if datacenter == konsul.Local {
		return ""
	}
	return datacenter
}

// ScopeFlags adds --global and --local.
type ScopeFlags struct{ global, local bool }

// Add adds the two flags.
func (s *ScopeFlags) Add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.global, "global", false, "the federation's value, written in the primary and replicated to every datacenter")
	cmd.Flags().BoolVar(&s.local, "local", false, "the datacenter's own value, which never leaves it")
	cmd.MarkFlagsMutuallyExclusive("global", "local")
}

// Scope returns the scope that was asked for; unspecified without a flag.
func (s *ScopeFlags) Scope() registryv1.Scope {
	switch {
	case s.global:
		return registryv1.Scope_SCOPE_GLOBAL
	case s.local:
		return registryv1.Scope_SCOPE_LOCAL
	default:
		return registryv1.Scope_SCOPE_UNSPECIFIED
	}
}

// ReadMode is the value of --read-mode.
type ReadMode struct{ Mode registryv1.ReadMode }

// ReadModeFlag is the flag of ReadMode.
const ReadModeFlag = "read-mode"

const (
	readModePrefix = "READ_MODE_"
	staleMode      = "stale"
)

// Add adds --read-mode.
func (m *ReadMode) Add(cmd *cobra.Command) {
	cmd.Flags().Var(m, ReadModeFlag, "default (the leader answers), stale (any server answers) or linearizable (a quorum confirms the leader)")
	Must(cmd.RegisterFlagCompletionFunc(ReadModeFlag, cobra.FixedCompletions([]string{"default", staleMode, "linearizable"}, cobra.ShellCompDirectiveNoFileComp)))
}

// String implements pflag.Value.
func (m *ReadMode) String() string {
	if m.Mode == registryv1.ReadMode_READ_MODE_UNSPECIFIED {
		return "default"
	}
	return strings.ToLower(strings.TrimPrefix(m.Mode.String(), readModePrefix))
}

// Type implements pflag.Value.
func (m *ReadMode) Type() string { return "mode" }

// Set implements pflag.Value.
func (m *ReadMode) Set(text string) error {
	number, ok := registryv1.ReadMode_value[readModePrefix+strings.ToUpper(text)]
	if !ok || number == 0 || strings.ToLower(text) != text {
		return fault.New(fault.InvalidArgument, ReasonUsage, "%q is no read mode; there are default, stale and linearizable", text)
	}
	m.Mode = registryv1.ReadMode(number)
	return nil
}

// Pairs is the value of a flag that takes one KEY=VALUE at a time, the value as it stands: commas
// and quotes are its own.
type Pairs map[string]string

// String implements pflag.Value.
func (p *Pairs) String() string {
	if p == nil {
		return ""
	}
	return MetaOf(*p)
}

// Type implements pflag.Value.
func (p *Pairs) Type() string { return "KEY=VALUE" }

// Set implements pflag.Value.
func (p *Pairs) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return fault.New(fault.InvalidArgument, ReasonUsage, "%q is not KEY=VALUE", text).WithRemedy("write KEY=VALUE, once for each")
	}
	if _, twice := (*p)[key]; twice {
		return fault.New(fault.InvalidArgument, ReasonUsage, "%q is given twice", key).WithRemedy("give each key once")
	}
	if *p == nil {
		*p = Pairs{}
	}
	(*p)[key] = value
	return nil
}

// ProtoText returns what is wrong with JSON in protobuf's words, without its name in front.
func ProtoText(err error) string {
	return strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
}

// CompleteDatacenters completes the name of a datacenter.
func (a *App) CompleteDatacenters(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.Complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
		answer, err := api.Datacenters.ListDatacenters(ctx, &wangossipv1.ListDatacentersRequest{})
		for _, dc := range answer.GetDatacenters() {
			names = append(names, dc.GetName())
		}
		return names, err
	})
}

// CompleteServices completes the name of a service as the first argument.
func (a *App) CompleteServices(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.Complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
		answer, err := api.Catalog.ListServices(ctx, &registryv1.ListServicesRequest{ReadMode: registryv1.ReadMode_READ_MODE_STALE})
		for _, s := range answer.GetServices() {
			names = append(names, s.GetName())
		}
		return names, err
	})
}

// CompleteKeys completes a key as the first argument.
func (a *App) CompleteKeys(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.Complete(cmd, func(ctx context.Context, api konsul.API) (names []string, err error) {
		answer, err := api.KV.List(ctx, &registryv1.ListRequest{
			Prefix: begun, KeysOnly: true, Limit: 100, ReadMode: registryv1.ReadMode_READ_MODE_STALE,
		})
		for _, e := range answer.GetEntries() {
			names = append(names, e.GetKey())
		}
		return names, err
	})
}

// Complete completes what list returns. It fails silently, and within two seconds.
func (a *App) Complete(cmd *cobra.Command, list func(context.Context, konsul.API) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	client, err := a.Client(completionTimeout)
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
