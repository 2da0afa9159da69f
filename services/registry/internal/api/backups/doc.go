// Package backups serves backups and restores, as streams.
package backups
