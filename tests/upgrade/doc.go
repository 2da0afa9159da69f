// Package upgrade runs the programs of an earlier commit beside today's: a folder that they wrote
// under load is opened by today's, and a cluster goes from one to the other server by server while
// it serves.
//
// Every change of what is on disk or between servers must pass it: what an earlier program wrote is
// readable, and servers of both ages form one cluster.
package upgrade
