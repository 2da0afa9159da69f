package record

import (
	"strings"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Prefixes of stored KV keys, one per scope.
const (
	GlobalPrefix = "global/"
	LocalPrefix  = "local/"
)

// ScopeOf decides whether a stored row belongs to the federation or to its datacenter alone. It is
// the one place that decides it: replication sends what is global here and nothing else. What it
// does not know is local.
func ScopeOf(table registryv1.Table, key string) registryv1.Scope {
	switch table {
	case registryv1.Table_TABLE_KV:
		if strings.HasPrefix(key, GlobalPrefix) {
			return registryv1.Scope_SCOPE_GLOBAL
		}
	case registryv1.Table_TABLE_ACL_TOKEN:
		// A token of one datacenter shows it in its key.
		if !strings.HasPrefix(key, LocalPrefix) {
			return registryv1.Scope_SCOPE_GLOBAL
		}
	case registryv1.Table_TABLE_ACL_POLICY,
		registryv1.Table_TABLE_ACL_ROLE,
		registryv1.Table_TABLE_ACL_BOOTSTRAP,
		registryv1.Table_TABLE_FAILOVER_POLICY,
		registryv1.Table_TABLE_CA_ROOT,
		registryv1.Table_TABLE_DATACENTER:
		return registryv1.Scope_SCOPE_GLOBAL
	}
	return registryv1.Scope_SCOPE_LOCAL
}

// Global says whether a stored row may leave its datacenter by replication.
func Global(table registryv1.Table, key string) bool {
	return ScopeOf(table, key) == registryv1.Scope_SCOPE_GLOBAL
}

// GlobalTables lists the tables that hold global rows, in the order in which replication sends them.
func GlobalTables() []registryv1.Table {
	return []registryv1.Table{
		registryv1.Table_TABLE_KV,
		registryv1.Table_TABLE_ACL_POLICY,
		registryv1.Table_TABLE_ACL_ROLE,
		registryv1.Table_TABLE_ACL_TOKEN,
		registryv1.Table_TABLE_ACL_BOOTSTRAP,
		registryv1.Table_TABLE_FAILOVER_POLICY,
		registryv1.Table_TABLE_CA_ROOT,
		registryv1.Table_TABLE_DATACENTER,
	}
}
