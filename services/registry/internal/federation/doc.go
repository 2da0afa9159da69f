// Package federation decides about the federation record, its members, and what is copied between
// datacenters.
//
// The leader founds the record once: the federation's id from its own certificate, epoch 1, the
// primary from the configuration (Own.Ensure). A secondary's own row is provisional until
// replication brings the one that the primary made at the join.
//
// record.Tables alone says what is global, and in which order it is copied. View.Entry is the only
// way out of a datacenter and asks it. ApplyReplicated commits rows and cursor in one entry,
// conditioned on the cursor's row. A source refuses a copy that is ahead of it, so that an empty,
// rebuilt source never makes copies forget. The age of copies is computed from the stored cursor
// (View.Copies), which has the time when everything was last here: it grows when the replicator is
// dead or paused, and when the source is silent.
//
// Each registry has a lineage, the id of its history, made when it is founded (lineage.go; see
// package lineage). The primary records the first by which a member copies, and its own. Calls and
// streams of other datacenters say which registry they mean, and another one refuses
// (OTHER_LINEAGE).
//
// The package makes commands and reads rows. It holds no state but for View, which keeps the record
// and the members in memory for those who ask on every call. Safe for concurrent use.
package federation
