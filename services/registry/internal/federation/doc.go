// Package federation decides about the federation record, its members, and what is copied between
// datacenters.
//
// It makes commands and reads rows; it holds no state but for View, which keeps the record and the
// members in memory for those who ask on every call. What may leave the datacenter is asked of
// record.Tables and of nothing else. Safe for concurrent use.
package federation
