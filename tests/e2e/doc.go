// Package e2e tells the stories of the federation with real processes, real disks and real sockets.
package e2e
