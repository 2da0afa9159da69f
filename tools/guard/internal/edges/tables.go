package edges

import "strings"

// core returns the packages of a service whose decisions are plain functions of their inputs.
func core(service string) []string {
	return map[string][]string{
		"registry":        {"record", "catalog", "kv", "acl", "federation", "watch", "fsm", "member"},
		"wan-gossip":      {"members", "datacenters"},
		"replicator":      {"cursor", "digest", "breaker", "lag"},
		"ca":              {"policy", "rotation", "jointoken"},
		"gateway":         {"route", "balance", "intention"},
		"failover-router": {"verdict", "ramp"},
		"agent":           {"reconcile", "cache"},
	}[service]
}

// rim returns the packages of a service that touch the world: sockets, disks, libraries that own
// threads.
func rim(service string) []string {
	return map[string][]string{
		"registry":        {"raftnode", "badgerstore", "forward", "cluster"},
		"wan-gossip":      {"serfpool", "peerfile"},
		"replicator":      {"source", "sink"},
		"ca":              {"issuer", "keystore"},
		"gateway":         {"listener", "sni", "mtls", "splice", "restedge"},
		"failover-router": {"prober", "xds", "proxy"},
		"agent":           {"checks", "dns", "sync"},
	}[service]
}

// foreign returns why a quiet core may not import a package, empty when it may.
func foreign(importPath string) string {
	for prefix, reason := range map[string]string{
		"go.uber.org/fx":                      "fx stays in mains, front doors and fx.go",
		"google.golang.org/grpc":              "return a fault and let the edge turn it into a gRPC status",
		"github.com/hashicorp/raft":           "take a command and a store; raftnode adapts them to Raft",
		"github.com/hashicorp/raft-autopilot": "say what a server is; raftnode adapts the library",
		"github.com/hashicorp/raft-wal":       "take a command and a store; raftnode adapts them to Raft",
		"github.com/hashicorp/serf":           "take plain values; serfpool adapts them",
		"github.com/dgraph-io/badger":         "declare the small store interface the core needs; badgerstore fulfils it",
		"konsul.dev/pkg/rpc":                  "declare the small interface the core needs; api or an edge fulfils it",
		"konsul.dev/pkg/konsulfx":             "fx stays in mains, front doors and fx.go",
		"net/http":                            "sockets stay at the rim: take plain values",
		"os":                                  "disks stay at the rim: take bytes, a reader or a small interface",
		"os/exec":                             "processes stay at the rim",
		"math/rand":                           "chance comes in through the constructor",
		"math/rand/v2":                        "chance comes in through the constructor",
		"crypto/rand":                         "chance comes in through the constructor, as an io.Reader",
	} {
		if importPath == prefix || strings.Contains(prefix, ".") && strings.HasPrefix(importPath, prefix+"/") {
			return reason
		}
	}
	return ""
}

// ambient returns what a quiet core should take instead of a call, empty when the call is fine.
func ambient(importPath, name string) string {
	switch importPath {
	case "time":
		switch name {
		case "Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep":
			return "take the time as an argument, or a clock.Clock in the constructor"
		}
	case "net":
		switch name {
		case "Dial", "DialTimeout", "Listen", "ListenPacket", "ListenTCP", "ListenUDP", "LookupHost", "LookupIP", "Interfaces":
			return "sockets stay at the rim: take plain values"
		}
	}
	return ""
}

// service returns the service a folder or an import path (without our prefix) belongs to, and the
// rest of it.
func service(dir string) (name, room string, ok bool) {
	rest, ok := strings.CutPrefix(dir, "services/")
	if !ok {
		return "", "", false
	}
	name, room, _ = strings.Cut(rest, "/")
	return name, room, true
}

// layer says what a folder of the tree is to the rest: "proto", "pkg", "services/ca", "tools/lab",
// "tests".
func layer(dir string) string {
	first, rest, _ := strings.Cut(dir, "/")
	switch first {
	case "services", "tools":
		second, _, _ := strings.Cut(rest, "/")
		return first + "/" + second
	default:
		return first
	}
}

// mayImport reports whether a layer may import another, and what to do if not.
func mayImport(from, to string) (remedy string, ok bool) {
	if from == to {
		return "", true
	}
	isService := func(l string) bool { return strings.HasPrefix(l, "services/") }
	switch {
	case to == "tests" || strings.HasPrefix(to, "tools/"):
		return "nothing imports tests or tools; a second user moves the code to pkg", false
	case to == "proto":
		return "", true
	case to == "pkg":
		return "contracts stand alone", from != "proto"
	case isService(from) && isService(to):
		return "services meet over gRPC: call it through its generated client, or move what both need to pkg", false
	case isService(to):
		return "only tools/konsul-dc and tests may import a service; call it over gRPC", from == "tools/konsul-dc" || from == "tests"
	default:
		return "the layers are proto, pkg, services, tools, tests", false
	}
}
