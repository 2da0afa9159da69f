// Package command is konsulctl's command tree: a package below it for each noun, and the root here.
// Run holds no state between calls and may be called concurrently.
package command
