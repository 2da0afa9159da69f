// Package command is konsulctl's command tree: it turns arguments into requests to a gateway and
// answers into what package output writes. Run holds no state between calls and may be called concurrently.
package command
