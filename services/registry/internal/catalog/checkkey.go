package catalog

import "strings"

// The registry's own checks. No caller can name them: ids begin with a letter or a digit.
const (
	// CheckMaintenance is critical while an instance or a node is under maintenance, else absent.
	CheckMaintenance = "_maintenance"
	// CheckLiveness is critical while a node that should send heartbeats does not.
	CheckLiveness = "_liveness"

	reserved = "_"
	// nodeChecks is how the keys of nodes' own checks begin.
	nodeChecks = "/"
)

// owner says whose a check is: an instance's or a node's.
type owner struct{ service, node, check string }

// key is the check's key in its table. A node's begins with a slash, which no id of a service does.
func (o owner) key() string {
	if o.node != "" {
		return nodeChecks + o.node + "/" + o.check
	}
	return o.service + "/" + o.check
}

func ownerOf(key string) owner {
	if rest, ok := strings.CutPrefix(key, nodeChecks); ok {
		node, check, _ := strings.Cut(rest, "/")
		return owner{node: node, check: check}
	}
	service, check, _ := strings.Cut(key, "/")
	return owner{service: service, check: check}
}

// String names what the check is about.
func (o owner) String() string {
	if o.node != "" {
		return "node " + o.node
	}
	return "service instance " + o.service
}
