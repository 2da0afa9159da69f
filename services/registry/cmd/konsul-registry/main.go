// Command konsul-registry runs one server of a datacenter's registry.
package main

import (
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/services/registry"
)

func main() {
	konsulfx.Main("konsul-registry", registry.DefaultConfig, registry.Module, registry.RecoverCommand())
}
