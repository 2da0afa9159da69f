package command

import (
	"github.com/spf13/cobra"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul"
)

// selection is what a command's flags select of the catalogue.
type selection struct {
	filter         string
	meta, nodeMeta map[string]string
	status         []string
}

func (s *selection) addFilter(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.filter, "filter", "", "only what matches this expression")
}

func (s *selection) addMeta(cmd *cobra.Command, help string) {
	cmd.Flags().Var((*pairs)(&s.meta), "meta", help)
}

func (s *selection) addNodeMeta(cmd *cobra.Command) {
	cmd.Flags().Var((*pairs)(&s.nodeMeta), "node-meta", "only instances on nodes with this meta, KEY=VALUE (repeatable)")
}

func (s *selection) addStatus(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&s.status, "status", nil, "only those that are passing, warning or critical (repeatable)")
	must(cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"passing", "warning", "critical"}, cobra.ShellCompDirectiveNoFileComp)))
}

// statuses reads --status.
func (s *selection) statuses() ([]registryv1.HealthStatus, error) {
	var out []registryv1.HealthStatus
	for _, text := range s.status {
		status, ok := konsul.Status(text).Proto()
		if !ok || text == "" {
			return nil, fault.Invalid("--status", "%q is no status", text).WithRemedy("use passing, warning or critical")
		}
		out = append(out, status)
	}
	return out, nil
}

// subject is whose check or maintenance a command is about.
type subject struct{ instance, node string }

func (s *subject) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.instance, "instance", "", "id of the instance")
	cmd.Flags().StringVar(&s.node, "node", "", "name of the node")
	cmd.MarkFlagsMutuallyExclusive("instance", "node")
	cmd.MarkFlagsOneRequired("instance", "node")
}

// String names it.
func (s *subject) String() string {
	if s.node != "" {
		return "node " + s.node
	}
	return s.instance
}
