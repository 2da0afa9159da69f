// Package backupfile is the file format of a registry's backups: what the registry writes and
// reads, and what konsulctl checks without one.
//
// A file is a .tar.gz that any tar can list: manifest.json first, so that a reader that does not
// want the file stops early; then rows/000001-<sha256>.pb and so on, each at most a few mebibytes
// of length-delimited Records; then seal.json with the totals and the hash over all of it. The gzip
// stream ends in an empty member that carries the SHA-256 of every byte before it. So a reader that
// came to the end has seen exactly what was written: one changed or missing byte is a DataLoss
// fault. Encrypt and Decrypt put age around the file.
//
// Writer and Reader stream: they hold one chunk in memory. Each is for one goroutine; everything
// else is safe for concurrent use.
package backupfile
