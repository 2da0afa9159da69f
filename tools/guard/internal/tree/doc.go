// Package tree reads a checkout into a form rules can look at: its text files, its modules, and its
// Go packages, parsed but not type-checked, so that rules also work on code that does not compile
// yet.
//
// It reads from any fs.FS and keeps nothing open. A Tree is immutable once read.
package tree
