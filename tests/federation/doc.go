// Package federation runs the real registries of two datacenters and the real replicator between
// them inside a test, and looks at what the copies say of themselves.
package federation
