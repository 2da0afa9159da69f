// Command konsul-gateway runs the mesh gateway of a datacenter.
package main

import (
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/services/gateway"
)

func main() { konsulfx.Main("konsul-gateway", gateway.DefaultConfig, gateway.Module) }
