// Command konsul-agent runs the agent of a node.
package main

import (
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/services/agent"
)

func main() { konsulfx.Main("konsul-agent", agent.DefaultConfig, agent.Module) }
