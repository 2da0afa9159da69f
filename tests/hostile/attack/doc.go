// Package attack is what tests of attackers share: one datacenter of real processes, one for each
// service, what they take of memory and descriptors, and good traffic that must go on meanwhile.
//
// A test starts a Datacenter, begins GoodTraffic, watches the attacked Process, attacks it in
// bounded loops, and holds what Watch saw against a bound that stands in the test. A Datacenter
// belongs to one test; the rest is safe for concurrent use. Linux only: it reads /proc.
package attack
