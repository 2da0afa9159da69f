package catalog

import (
	"strings"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// InstanceFilter decides about instances.
type InstanceFilter = Filter[*registryv1.ServiceInstance]

// NodeFilter decides about nodes.
type NodeFilter = Filter[NodeAnswer]

// ParseInstanceFilter reads a filter of instances; nil when the expression is empty.
func ParseInstanceFilter(expression string) (*InstanceFilter, error) {
	type instance = *registryv1.ServiceInstance
	return parseFilter(expression, fields[instance]{
		"datacenter":              {text: instance.GetDatacenter},
		"status":                  {text: func(i instance) string { return statusText(i.GetStatus()) }},
		"checks":                  {dict: func(i instance) map[string]string { return statuses(i.GetChecks()) }},
		"node.name":               {text: func(i instance) string { return i.GetNode().GetName() }},
		"node.address":            {text: func(i instance) string { return i.GetNode().GetAddress() }},
		"node.meta":               {dict: func(i instance) map[string]string { return i.GetNode().GetMeta() }},
		"node.checks":             {dict: func(i instance) map[string]string { return statuses(i.GetNodeChecks()) }},
		"service.id":              {text: func(i instance) string { return i.GetService().GetId() }},
		"service.name":            {text: func(i instance) string { return i.GetService().GetName() }},
		"service.address":         {text: func(i instance) string { return i.GetService().GetAddress() }},
		"service.port":            {number: func(i instance) uint32 { return i.GetService().GetPort() }},
		"service.tags":            {list: func(i instance) []string { return i.GetService().GetTags() }},
		"service.meta":            {dict: func(i instance) map[string]string { return i.GetService().GetMeta() }},
		"service.weights.passing": {number: func(i instance) uint32 { return weights(i).GetPassing() }},
		"service.weights.warning": {number: func(i instance) uint32 { return weights(i).GetWarning() }},
	})
}

// ParseNodeFilter reads a filter of nodes; nil when the expression is empty.
func ParseNodeFilter(expression string) (*NodeFilter, error) {
	return parseFilter(expression, fields[NodeAnswer]{
		"name":    {text: func(n NodeAnswer) string { return n.Node.GetName() }},
		"address": {text: func(n NodeAnswer) string { return n.Node.GetAddress() }},
		"meta":    {dict: func(n NodeAnswer) map[string]string { return n.Node.GetMeta() }},
		"status":  {text: func(n NodeAnswer) string { return statusText(n.Status) }},
		"checks":  {dict: func(n NodeAnswer) map[string]string { return statuses(n.Checks) }},
	})
}

func statusText(s registryv1.HealthStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "HEALTH_STATUS_"))
}

// statuses maps checks' ids to their statuses.
func statuses(checks []*registryv1.Check) map[string]string {
	out := make(map[string]string, len(checks))
	for _, c := range checks {
		out[c.GetId()] = statusText(c.GetStatus())
	}
	return out
}

// weights returns an instance's weights, those that hold when it has none included.
func weights(i *registryv1.ServiceInstance) *registryv1.Weights {
	if w := i.GetService().GetWeights(); w != nil {
		return w
	}
	return &registryv1.Weights{Passing: 1, Warning: 1}
}
