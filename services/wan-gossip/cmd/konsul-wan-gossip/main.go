// Command konsul-wan-gossip runs the gossip of a datacenter with the others.
package main

import (
	"konsul.dev/pkg/konsulfx"
	wangossip "konsul.dev/services/wan-gossip"
)

func main() { konsulfx.Main("konsul-wan-gossip", wangossip.DefaultConfig, wangossip.Module) }
