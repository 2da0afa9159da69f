package record

import (
	"strings"

	"google.golang.org/protobuf/proto"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Table is what the registry knows of one table. Of a table that this version does not know it is
// the ID alone: its rows are local, and only management tokens may read them.
type Table struct {
	ID registryv1.Table
	// Scope says which rows belong to the federation. Those are written in the primary and
	// replicated, and nothing else leaves its datacenter.
	Scope ScopeRule
	// Entry is the type as which global rows are replicated.
	Entry federationv1.ReplicatedEntry_EntryType
	// Order is when rows are applied, of what is replicated together: lower ones first.
	Order Order
	// Retention says what stays of rows that were overwritten or deleted.
	Retention Retention
	// ACL is the permission that reading a row takes.
	ACL Permission
	// Watch says who may watch the table.
	Watch Watchers
	// Restore says what a restore makes of the rows.
	Restore Restore
	// NotExported keeps the rows out of backups.
	NotExported bool
	// Value makes the message that values decode into; nil: they are bytes, or of several kinds.
	Value func() proto.Message
}

// ScopeRule decides the scope of a table's rows.
type ScopeRule uint8

const (
	// LocalRows stay in their datacenter.
	LocalRows ScopeRule = iota
	// GlobalRows belong to the federation.
	GlobalRows
	// GlobalPrefixed rows are global if their key begins with GlobalPrefix.
	GlobalPrefixed
	// LocalPrefixed rows are local if their key begins with LocalPrefix, else global.
	LocalPrefixed
)

// Order ranks tables in replication.
type Order uint8

// A change is applied in pieces, and between two of them no token may have more rights than at the
// source, because a policy that denies is still to come.
const (
	PoliciesFirst Order = iota + 1
	ThenRoles
	ThenTheRest
)

// Retention says what stays of rows that were overwritten or deleted.
type Retention uint8

const (
	// KeepVersions has a delete leave a tombstone, which is replicated if the row was. Tombstones
	// and overwritten versions stay until the GC watermark has passed them.
	KeepVersions Retention = iota
	// KeepNothing is for rows that are written once, and dropped without a tombstone when nobody
	// can ask for them any more. Such a table is neither watched nor replicated nor backed up.
	KeepNothing
)

// Permission is what reading a row takes.
type Permission struct {
	// Resource is a resource of ACL rules, such as "service"; empty: only management tokens may.
	Resource string
	// Named says where the row's name is found.
	Named NameRule
	// Name is the one name of all rows.
	Name string
}

// NameRule says where the name of a row is found, by which ACL rules choose.
type NameRule uint8

const (
	// NamedAlike rows all have the permission's name.
	NamedAlike NameRule = iota
	// NamedByKey rows are named by their key.
	NamedByKey
	// NamedByValue rows are named by their value. A tombstone says nothing of it.
	NamedByValue
)

// Watchers says who may watch a table, if their token lets them read its rows.
type Watchers uint8

const (
	// WatchedByNobody is for rows that hold secrets, or mean nothing outside the registry.
	WatchedByNobody Watchers = iota
	// WatchedByUsers admits whoever has a user's token.
	WatchedByUsers
	// WatchedByOwn admits users, and the services of the own datacenter on their own account.
	WatchedByOwn
	// WatchedByAll admits users and all services, also of other datacenters. It is what discovery
	// and failover need.
	WatchedByAll
)

// Restore says what a restore makes of the datacenter's rows and of the backup's. Whatever it says,
// global rows of a secondary stay: they are the primary's to change.
type Restore uint8

const (
	// RestoreReplaces the datacenter's rows by the backup's.
	RestoreReplaces Restore = iota
	// RestoreKeeps the datacenter's rows and takes none.
	RestoreKeeps
	// RestoreMerges the backup's rows in where the datacenter has none.
	RestoreMerges
	// RestoreNewest keeps the datacenter's rows, unless the backup is its own of a later epoch.
	RestoreNewest
	// RestoreCursors keeps the rows in a secondary, which goes on copying where it was, and drops
	// them in a primary; it takes none.
	RestoreCursors
)

// Global reports whether the row with a key belongs to the federation.
func (t Table) Global(key string) bool {
	switch t.Scope {
	case GlobalRows:
		return true
	case GlobalPrefixed:
		return strings.HasPrefix(key, GlobalPrefix)
	case LocalPrefixed:
		return !strings.HasPrefix(key, LocalPrefix)
	}
	return false
}

// BackedUp reports whether backups hold the table.
func (t Table) BackedUp() bool { return t.Retention == KeepVersions && !t.NotExported }

// GlobalKeys returns the prefix that the keys of all global rows have.
func (t Table) GlobalKeys() string {
	if t.Scope == GlobalPrefixed {
		return GlobalPrefix
	}
	return ""
}

// Name is what people call the table, such as "failover_policy".
func (t Table) Name() string {
	return strings.ToLower(strings.TrimPrefix(t.ID.String(), "TABLE_"))
}

// Global reports whether a stored row belongs to the federation.
func Global(table registryv1.Table, key string) bool { return Tables().Of(table).Global(key) }
