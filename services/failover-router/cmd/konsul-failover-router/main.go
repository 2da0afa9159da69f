// Command konsul-failover-router runs the failover-router of a datacenter.
package main

import (
	"konsul.dev/pkg/konsulfx"
	failoverrouter "konsul.dev/services/failover-router"
)

func main() {
	konsulfx.Main("konsul-failover-router", failoverrouter.DefaultConfig, failoverrouter.Module)
}
