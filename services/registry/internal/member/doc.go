// Package member knows which servers make a datacenter's registry: where they are, which versions
// they run, when servers that have just met may found a cluster, and by which settings the leader
// looks after them.
//
// It is a view of stored rows, fed like the other views, and decisions that are plain functions:
// Meet says what a server without state does next, Judge what is wrong with a cluster and what
// helps, View.Admit whether all members understand a command's version. View is safe for concurrent
// use; what it returns must not be changed.
package member
