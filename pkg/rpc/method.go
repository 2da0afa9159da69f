package rpc

import (
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// HealthWrites is the service by which a registry's health service says whether it knows a leader, so that writes are served.
const HealthWrites = "konsul.registry.writes"

// ReadsOnly reports whether a method changes nothing, or nothing more when it is called again, going by the names
// the contracts use.
func ReadsOnly(fullMethod string) bool {
	name := path.Base(fullMethod)
	return slices.ContainsFunc([]string{
		"Get", "List", "Query", "Resolve", "ClusterStatus", "ServerStatus", "History", "KeepAlive", "Acquire", "Watch", "Introspect", "Authorize", "Check",
	}, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// DescriptorName returns the name of a method's descriptor, "konsul.registry.v1.KVService.Get".
func DescriptorName(fullMethod string) protoreflect.FullName {
	return protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(fullMethod, "/"), "/", "."))
}
