// Package hostile attacks the faces of real processes as strangers, token holders and broken-into
// hosts would, and holds what that costs the process against a stated bound, with good traffic
// served meanwhile.
//
// An attack is a test of at most fifteen seconds or so: start an attack.Datacenter (shared by the
// rows of a table), begin attack.GoodTraffic, attack.Watch the process, attack in bounded loops,
// and compare.
package hostile
