// Command konsul-ca runs the certificate authority of a datacenter.
package main

import (
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/services/ca"
)

func main() { konsulfx.Main("konsul-ca", ca.DefaultConfig, ca.Module) }
