// Package robustness breaks three real servers in every way it knows, while clients write and read,
// and then judges what the clients saw (package history). Package arena runs the servers.
//
// A run is decided by its seed: which faults, in which order, for how long, and what every client
// asks for. The interleaving is the machine's, so a seed that failed may need some runs to fail
// again. A run with too few operations is invalid, which fails too: a cluster that answers nothing
// makes no mistakes.
//
//	make robustness RUNS=20              # seeds of its own, printed
//	make robustness SEED=42 RUNS=10      # seeds 42 to 51
//	make robustness TIME=30s             # longer runs, more faults each
//
// A run that fails names a folder with the servers' logs, history.json, and a picture of the part
// of the history that has no order.
package robustness
