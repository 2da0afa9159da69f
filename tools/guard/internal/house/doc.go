// Package house checks the habits of the house that need no knowledge of imports: package docs,
// names, TODOs, what must not be written down, and one version of each dependency for all modules.
package house
