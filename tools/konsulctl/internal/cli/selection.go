package cli

import (
	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
)

// Selection is what a command's flags select of the catalogue.
type Selection struct {
	Filter         string
	Meta, NodeMeta map[string]string
	Status         []string
}

// AddFilter adds --filter.
func (s *Selection) AddFilter(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.Filter, "filter", "", "only what matches this expression")
}

// AddMeta adds --meta.
func (s *Selection) AddMeta(cmd *cobra.Command, help string) {
	cmd.Flags().Var((*Pairs)(&s.Meta), "meta", help)
}

// AddNodeMeta adds --node-meta.
func (s *Selection) AddNodeMeta(cmd *cobra.Command) {
	cmd.Flags().Var((*Pairs)(&s.NodeMeta), "node-meta", "only instances on nodes with this meta, KEY=VALUE (repeatable)")
}

// AddStatus adds --status.
func (s *Selection) AddStatus(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&s.Status, "status", nil, "only those that are passing, warning or critical (repeatable)")
	Must(cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"passing", "warning", "critical"}, cobra.ShellCompDirectiveNoFileComp)))
}

// Statuses reads --status.
func (s *Selection) Statuses() ([]registryv1.HealthStatus, error) {
	var out []registryv1.HealthStatus
	for _, text := range s.Status {
		status, ok := konsul.Status(text).Proto()
		if !ok || text == "" {
			return nil, fault.Invalid("--status", "%q is no status", text).WithRemedy("use passing, warning or critical")
		}
		out = append(out, status)
	}
	return out, nil
}

// Subject is whose check or maintenance a command is about.
type Subject struct{ Instance, Node string }

// Add adds --instance and --node, of which a command needs one.
func (s *Subject) Add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.Instance, "instance", "", "id of the instance")
	cmd.Flags().StringVar(&s.Node, "node", "", "name of the node")
	cmd.MarkFlagsMutuallyExclusive("instance", "node")
	cmd.MarkFlagsOneRequired("instance", "node")
}

// String names it.
func (s *Subject) String() string {
	if s.Node != "" {
		return "node " + s.Node
	}
	return s.Instance
}
