package kv

import (
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// Filters are the rows that a reader of a key waits for, or unless exact of all keys that begin
// with it.
func Filters(key record.Key, exact bool) []watch.Filter {
	var filters []watch.Filter
	for _, scope := range key.Read() {
		filters = append(filters, watch.Filter{Table: table, Prefix: key.In(scope), Exact: exact})
	}
	return filters
}
