// Package locks serves the lock service.
package locks
