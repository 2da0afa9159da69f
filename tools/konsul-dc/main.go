// Command konsul-dc runs a whole datacenter in one process with one data folder: every service,
// from one konsul.yaml, over the same sockets they use when each runs on its own.
package main

import "konsul.dev/pkg/konsulfx"

func main() { konsulfx.Main("konsul-dc", DefaultConfig, Module) }
