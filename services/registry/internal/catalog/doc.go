// Package catalog decides what queries of nodes, services and checks return and what changes to
// them mean.
//
// Requests become commands in plain functions (Writer). They are planned against View, the
// catalogue in memory, on the leader, and condition on the rows they leave or carry over. View is
// fed before writers hear of their success, so a plan that lost a race finds the new state.
//
// # View
//
// View takes in committed rows. It keeps them encoded, reads of a service's row what it needs
// without decoding the rest (head.go), and decodes an instance for whoever selects it, until it
// changes. What a query of a service returns is encoded once and kept until it changes (query.go),
// so that a health query encodes nothing but its meta; api/services sends the bytes as the unknown
// fields of a response. A batch says which services' answers changed; their names are published to
// the watch hub as rows of a table that is not stored (topic.go), so that a blocked query waits for
// its own service alone.
//
// Filters have go-bexpr's grammar and are compiled to functions (filter.go): what is wrong is
// refused before the first instance is looked at. Length, parser steps and depth are bounded.
//
// # Health
//
// Checks of the registry's own have names that begin with an underscore, which no caller may use:
// _maintenance, and _liveness of a node, which says whether its heartbeats come. They are rows like
// others: durable, and seen by watches. Keys of a node's checks begin with a slash, and count for
// all its instances.
//
// Deadlines of TTL checks, heartbeats, dead and empty nodes follow from committed rows on every
// server (deadline.go), and pass on the leader only (package leading). A report that changes
// nothing renews the leader's deadline and costs no commit. A new leader begins every deadline
// anew, so that nothing becomes critical because nobody could report. What passed is committed on
// condition that its row did not change. The time after which a dead node is reaped counts from its
// death, over all leaders.
//
// # Ownership
//
// A row says who registered it: a token, or its node's agent. A registration that would take an
// instance of another node, service or owner is refused (SERVICE_ID_TAKEN) unless it says replace.
// Rows without an owner, and those of a token that is gone, may be taken on the same node for the
// same service. What a registration does not name of its node stays. Registrations on a node and
// its deregistration take turns in the leader (api/services). A node that only registrations of
// instances made is reaped when it has been empty for a while.
//
// # Concurrency
//
// View is safe for concurrent use, and what it returns must not be changed. Readers hold its lock
// while they select or encode, and the goroutine that applies waits for them. A service's own lock
// comes after the View's.
//
// # Trade-offs
//
// The catalogue costs memory, about 0.45 KB for an instance with a check, and is read once at the
// start. After a restart an answer counts as changed at the restart's index: one spurious wake-up
// for each blocked reader, never a missed one.
package catalog
