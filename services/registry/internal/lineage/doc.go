// Package lineage keeps two registries from going by one datacenter's name. A server without state
// asks the other datacenters before it founds a registry, and a leader compares its lineage with
// the one they know as long as it leads. A lineage that nobody has confirmed gives way; a confirmed
// one does not, so that one datacenter that lies cannot end another. For operators:
// docs/runbooks/registry-second.md.
package lineage
