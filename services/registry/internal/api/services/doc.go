// Package services serves the catalogue: nodes, instances and their checks, now and as of an index.
package services
