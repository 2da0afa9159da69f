// Command konsul-replicator runs the replicator of a datacenter.
package main

import (
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/services/replicator"
)

func main() { konsulfx.Main("konsul-replicator", replicator.DefaultConfig, replicator.Module) }
