package acl

import (
	"slices"
	"strings"

	"konsul.dev/pkg/fault"
)

// Resource is a kind of thing that permissions are about.
type Resource uint8

// The resources. ACL is the policies, roles and tokens themselves: no rule can name it, because who
// may write rules may do everything; only a management token has it.
const (
	KV Resource = iota
	Service
	Node
	Intention
	Federation
	Operator
	Backup
	Agent
	ACL
	resources
)

func resourceNames() [resources]string {
	return [resources]string{"kv", "service", "node", "intention", "federation", "operator", "backup", "agent", "acl"}
}

// String is the name in rules.
func (r Resource) String() string {
	if r < resources {
		return resourceNames()[r]
	}
	return "unknown"
}

// ParseResource reads the name of a resource that rules may be about.
func ParseResource(field, name string) (Resource, error) {
	names := resourceNames()
	i := slices.Index(names[:ACL], name)
	if i < 0 {
		return 0, fault.Invalid(field, "%q is no resource", name).WithRemedy("use one of " + strings.Join(names[:ACL], ", "))
	}
	return Resource(i), nil
}

// ResourceNamed returns the resource with a name; ACL, which no rule grants, if there is none.
func ResourceNamed(name string) Resource {
	names := resourceNames()
	if i := slices.Index(names[:], name); i >= 0 {
		return Resource(i)
	}
	return ACL
}

// Access is a set of ways to use a resource.
type Access uint8

// The ways. A rule that grants one may imply others; see grants.
const (
	// List shows that a thing is there: its name, no more.
	List Access = 1 << iota
	// Read shows what it holds.
	Read
	// Write makes or changes it.
	Write
	// Delete removes it.
	Delete
	// deny takes everything away; only rules say it.
	deny
)

type level struct {
	name    string
	access  Access
	implies Access
}

// levels is the table of what a rule's word grants.
func levels() []level {
	return []level{
		{"list", List, List},
		{"read", Read, List | Read},
		{"write", Write, List | Read | Write},
		{"delete", Delete, List | Delete},
		{"deny", deny, deny},
	}
}

// String names the least of the ways.
func (a Access) String() string {
	for _, l := range levels() {
		if a&l.access != 0 {
			return l.name
		}
	}
	return "nothing"
}

// ParseAccess reads a way to use a resource, as a question about a permission names it.
func ParseAccess(field, name string) (Access, error) {
	for _, l := range levels() {
		if l.name == name && l.access != deny {
			return l.access, nil
		}
	}
	return 0, fault.Invalid(field, "%q is no access", name).WithRemedy("use list, read, write or delete")
}

// Need is one permission that a call takes.
type Need struct {
	Resource Resource
	// Name is what the call is about; empty: the resource as a whole. Of KV it is the stored key,
	// with its scope in front; one without is good in whichever scope the token may use it.
	Name string
	// Access is one way.
	Access Access
	// Below asks for everything whose name begins with Name.
	Below bool
}

// String is the permission's name, such as "kv:write on local/config/x".
func (n Need) String() string {
	text := n.Resource.String() + ":" + n.Access.String()
	switch {
	case n.Below && n.Name == "":
		return text + " on everything"
	case n.Below:
		return text + " on everything below " + n.Name
	case n.Name != "":
		return text + " on " + n.Name
	}
	return text
}

// Names returns permissions in words, for the audit log.
func Names(needs []Need) string {
	names := make([]string, len(needs))
	for i, n := range needs {
		names[i] = n.String()
	}
	return strings.Join(names, ", ")
}
