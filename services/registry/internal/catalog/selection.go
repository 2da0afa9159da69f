package catalog

import (
	"slices"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Selection says which instances an answer holds; the zero value: all.
type Selection struct {
	PassingOnly bool
	// Statuses lists the statuses to answer; empty: all.
	Statuses []registryv1.HealthStatus
	// Tags must all be carried.
	Tags []string
	// Meta and NodeMeta must all be as given.
	Meta, NodeMeta map[string]string
	// Filter decides about what is left; nil: all of it.
	Filter *InstanceFilter
}

func (s Selection) all() bool { return s.Plain() && !s.PassingOnly }

// Plain says that at most the health counts: such answers are kept encoded.
func (s Selection) Plain() bool {
	return len(s.Statuses) == 0 && len(s.Tags) == 0 && len(s.Meta) == 0 && len(s.NodeMeta) == 0 && s.Filter == nil
}

func (s Selection) matches(i *registryv1.ServiceInstance) bool {
	switch {
	case s.PassingOnly && i.GetStatus() != passing,
		!among(s.Statuses, i.GetStatus()),
		!carries(i.GetService().GetTags(), s.Tags),
		!holds(i.GetService().GetMeta(), s.Meta),
		!holds(i.GetNode().GetMeta(), s.NodeMeta):
		return false
	}
	return s.Filter == nil || s.Filter.decide(i)
}

// NodeSelection says which nodes an answer holds; the zero value: all.
type NodeSelection struct {
	Meta     map[string]string
	Statuses []registryv1.HealthStatus
	Filter   *NodeFilter
}

func (s NodeSelection) matches(n NodeAnswer) bool {
	return among(s.Statuses, n.Status) && holds(n.Node.GetMeta(), s.Meta) && (s.Filter == nil || s.Filter.decide(n))
}

// CheckSelection says which checks an answer holds; the zero value: all.
type CheckSelection struct {
	Node, Service, ID string
	Statuses          []registryv1.HealthStatus
}

func (s CheckSelection) matches(c *registryv1.Check, node, service string) bool {
	return (s.Node == "" || s.Node == node) && (s.Service == "" || s.Service == service) &&
		(s.ID == "" || s.ID == c.GetId()) && among(s.Statuses, c.GetStatus())
}

func among(statuses []registryv1.HealthStatus, status registryv1.HealthStatus) bool {
	return len(statuses) == 0 || slices.Contains(statuses, status)
}

func carries(have, want []string) bool {
	for _, tag := range want {
		if !slices.Contains(have, tag) {
			return false
		}
	}
	return true
}

func holds(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// checkStatuses refuses statuses that no answer has.
func checkStatuses(statuses []registryv1.HealthStatus) error {
	for _, s := range statuses {
		if err := status("statuses", s, false); err != nil {
			return err
		}
	}
	return nil
}

// InstanceSelection is what the requests that select instances have in common.
type InstanceSelection interface {
	GetTags() []string
	GetMeta() map[string]string
	GetNodeMeta() map[string]string
	GetStatuses() []registryv1.HealthStatus
	GetFilter() string
}

// Select reads a selection off a request. InvalidArgument when it makes no sense.
func Select(req InstanceSelection) (Selection, error) {
	s := Selection{Tags: req.GetTags(), Meta: req.GetMeta(), NodeMeta: req.GetNodeMeta(), Statuses: req.GetStatuses()}
	if err := checkStatuses(s.Statuses); err != nil {
		return s, err
	}
	var err error
	s.Filter, err = ParseInstanceFilter(req.GetFilter())
	return s, err
}

// SelectNodes reads a selection off a request. InvalidArgument when it makes no sense.
func SelectNodes(req *registryv1.ListNodesRequest) (NodeSelection, error) {
	s := NodeSelection{Meta: req.GetMeta(), Statuses: req.GetStatuses()}
	if err := checkStatuses(s.Statuses); err != nil {
		return s, err
	}
	var err error
	s.Filter, err = ParseNodeFilter(req.GetFilter())
	return s, err
}

// SelectChecks reads a selection off a request. InvalidArgument when it makes no sense.
func SelectChecks(req *registryv1.ListChecksRequest) (CheckSelection, error) {
	return CheckSelection{Node: req.GetNode(), Service: req.GetService(), ID: req.GetCheckId(), Statuses: req.GetStatuses()}, checkStatuses(req.GetStatuses())
}
