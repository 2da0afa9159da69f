package catalog

import (
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/watch"
)

// Topic is what a reader of a service's answer waits for: a row in a table that is not stored.
func Topic(service string) watch.Filter {
	return watch.Filter{Table: registryv1.Table_TABLE_UNSPECIFIED, Prefix: service, Exact: true}
}

// NodeRows are the rows that nodes and their own checks are made of.
func NodeRows() []watch.Filter {
	return []watch.Filter{{Table: registryv1.Table_TABLE_NODE}, {Table: registryv1.Table_TABLE_CHECK, Prefix: nodeChecks}}
}

// Topics returns the rows to publish when the answers of services changed.
func Topics(changed []string, index uint64) []*registryv1.Record {
	rows := make([]*registryv1.Record, len(changed))
	for i, service := range changed {
		rows[i] = &registryv1.Record{Key: service, ModifyIndex: index}
	}
	return rows
}
