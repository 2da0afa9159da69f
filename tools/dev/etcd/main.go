// Command etcd is the etcd server, pinned here as the peer that tests/bench measures the registry
// against.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
