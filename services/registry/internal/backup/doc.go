// Package backup makes backups of the registry's state, restores them, and keeps those that a
// schedule makes. pkg/backupfile is the format; what goes into a restored state is decided by
// Target alone, row by row. DESIGN.md beside this file says what stays, comes and goes.
//
// A Manager is safe for concurrent use; one restore runs at a time. It knows neither Badger nor
// Raft: the state comes in through Params.Export and goes back through Params.Install.
package backup
