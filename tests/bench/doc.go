// Package bench measures konsul beside its peers, in one run on one machine, and prints ratios:
// absolute times on shared machines mean little.
package bench
