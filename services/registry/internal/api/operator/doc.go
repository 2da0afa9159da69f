// Package operator serves the state and the membership of the cluster.
package operator
