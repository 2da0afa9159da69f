package record

import (
	"slices"

	"google.golang.org/protobuf/proto"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Catalogue describes tables.
type Catalogue []Table

// Tables describes every table of the registry. Nobody may change it.
func Tables() Catalogue { return tables }

// Of returns what is known of a table; of one that is not known, its ID alone.
func (c Catalogue) Of(id registryv1.Table) Table {
	for i := range c {
		if c[i].ID == id {
			return c[i]
		}
	}
	return Table{ID: id}
}

// Replicated returns the tables that have global rows.
func (c Catalogue) Replicated() []Table {
	return slices.DeleteFunc(slices.Clone(c), func(t Table) bool { return t.Scope == LocalRows })
}

// OfEntry returns the table whose rows are replicated as a type; false if there is none.
func (c Catalogue) OfEntry(entry federationv1.ReplicatedEntry_EntryType) (Table, bool) {
	i := slices.IndexFunc(c, func(t Table) bool { return t.Scope != LocalRows && t.Entry == entry })
	if i < 0 {
		return Table{}, false
	}
	return c[i], true
}

var tables = Catalogue{ //nolint:gochecknoglobals // it never changes
	{
		ID:    registryv1.Table_TABLE_KV,
		Scope: GlobalPrefixed, Entry: federationv1.ReplicatedEntry_KV, Order: ThenTheRest,
		// Who may read which keys only a user's token says.
		ACL: Permission{Resource: "kv", Named: NamedByKey}, Watch: WatchedByUsers,
	},
	{
		ID:  registryv1.Table_TABLE_NODE,
		ACL: Permission{Resource: "node", Named: NamedByKey}, Watch: WatchedByAll,
		Value: message[registryv1.Node],
	},
	{
		ID:  registryv1.Table_TABLE_SERVICE,
		ACL: Permission{Resource: "service", Named: NamedByValue}, Watch: WatchedByAll,
		Value: message[registryv1.Service],
	},
	{
		// A check of a node takes the permission for that node.
		ID:  registryv1.Table_TABLE_CHECK,
		ACL: Permission{Resource: "service", Named: NamedByValue}, Watch: WatchedByAll,
		Value: message[registryv1.Check],
	},
	{
		ID:    registryv1.Table_TABLE_ACL_TOKEN,
		Scope: LocalPrefixed, Entry: federationv1.ReplicatedEntry_ACL_TOKEN, Order: ThenTheRest,
		Value: message[registryv1.ACLToken],
	},
	{
		ID:    registryv1.Table_TABLE_FAILOVER_POLICY,
		Scope: GlobalRows, Entry: federationv1.ReplicatedEntry_FAILOVER_POLICY, Order: ThenTheRest,
		ACL: Permission{Resource: "service", Named: NamedByKey}, Watch: WatchedByAll,
		Value: message[registryv1.FailoverPolicy],
	},
	{
		ID:    registryv1.Table_TABLE_CA_ROOT,
		Scope: GlobalRows, Entry: federationv1.ReplicatedEntry_CA_CERT, Order: ThenTheRest,
		ACL: Permission{Resource: "federation"}, Watch: WatchedByAll,
		Restore: RestoreKeeps, Value: message[registryv1.CARoot],
	},
	{
		ID:  registryv1.Table_TABLE_FEDERATION,
		ACL: Permission{Resource: "federation"}, Watch: WatchedByAll,
		Restore: RestoreNewest, Value: message[federationv1.Federation],
	},
	{
		ID:    registryv1.Table_TABLE_DATACENTER,
		Scope: GlobalRows, Entry: federationv1.ReplicatedEntry_DATACENTER, Order: ThenTheRest,
		ACL: Permission{Resource: "federation"}, Watch: WatchedByAll,
		Restore: RestoreMerges, Value: message[federationv1.Datacenter],
	},
	{
		// A token that was used must not come back to life.
		ID:      registryv1.Table_TABLE_JOIN_TOKEN,
		Restore: RestoreKeeps, NotExported: true, Value: message[registryv1.JoinToken],
	},
	{
		ID:  registryv1.Table_TABLE_REPLICATION_CURSOR,
		ACL: Permission{Resource: "operator", Name: "replication"}, Watch: WatchedByOwn,
		Restore: RestoreCursors, Value: message[federationv1.ReplicationCursor],
	},
	{
		ID:        registryv1.Table_TABLE_REQUEST,
		Retention: KeepNothing, Value: message[registryv1.RequestOutcomes],
	},
	{ID: registryv1.Table_TABLE_LEASE},
	{ID: registryv1.Table_TABLE_LOCK, Value: message[registryv1.Lock]},
	{
		ID:    registryv1.Table_TABLE_ACL_POLICY,
		Scope: GlobalRows, Entry: federationv1.ReplicatedEntry_ACL_POLICY, Order: PoliciesFirst,
		Value: message[registryv1.ACLPolicy],
	},
	{
		ID:    registryv1.Table_TABLE_ACL_ROLE,
		Scope: GlobalRows, Entry: federationv1.ReplicatedEntry_ACL_ROLE, Order: ThenRoles,
		Value: message[registryv1.ACLRole],
	},
	{ID: registryv1.Table_TABLE_SETTING},
	{
		ID:    registryv1.Table_TABLE_ACL_BOOTSTRAP,
		Scope: GlobalRows, Entry: federationv1.ReplicatedEntry_ACL_BOOTSTRAP, Order: ThenTheRest,
		Restore: RestoreMerges, Value: message[registryv1.ACLBootstrap],
	},
	{
		ID:      registryv1.Table_TABLE_SERVER,
		Restore: RestoreKeeps, Value: message[registryv1.Member],
	},
}

func message[M any, P interface {
	*M
	proto.Message
}]() proto.Message {
	return P(new(M))
}
