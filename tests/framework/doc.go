// Package framework runs real konsul binaries for tests: a lab of three datacenters on loopback
// addresses of its own, with the means to kill one, bring it back, and ask it over every face.
//
// A Lab belongs to one test and is not safe for concurrent use, but for CTL, REST and Client.
package framework
