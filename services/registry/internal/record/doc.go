// Package record knows what a row of the registry is: its table, its key, its scope, and how rows
// are read.
//
// What a table is stands in Tables and nowhere else: which rows leave their datacenter, as what and
// in which order, what deletes leave behind, who may read and watch them, and what a restore makes
// of them. ParseKey says which row a caller means. Everything in this package is a pure function or
// an interface; it may be used from anywhere, concurrently.
package record
