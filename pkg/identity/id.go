package identity

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"konsul.dev/pkg/fault"
)

// Kinds of identities.
const (
	KindService  = "svc"
	KindWorkload = "workload"
)

const trustDomainSuffix = ".konsul"

// ID names a service or workload: spiffe://<federation
// id>.konsul/dc/<datacenter>/<kind>/<service>[/<node>].
type ID struct {
	FederationID string
	Datacenter   string
	// Kind is KindService for konsul's own services, KindWorkload for what runs in the mesh.
	Kind    string
	Service string
	// Node is the node whose agent it is; empty for every other service, and in certificates of
	// agents that were made by earlier versions.
	Node string
}

// TrustDomain returns the trust domain of a federation.
func TrustDomain(federationID string) string { return federationID + trustDomainSuffix }

// String returns the SPIFFE id; empty for the zero ID.
func (id ID) String() string {
	if id == (ID{}) {
		return ""
	}
	uri := "spiffe://" + TrustDomain(id.FederationID) + "/dc/" + id.Datacenter + "/" + id.Kind + "/" + id.Service
	if id.Node != "" {
		uri += "/" + id.Node
	}
	return uri
}

// ParseID reads a SPIFFE id of the form String gives.
func ParseID(uri string) (ID, error) {
	parsed, err := spiffeid.FromString(uri)
	if err != nil {
		return ID{}, fault.Invalid("spiffe_id", "%q: %v", uri, err)
	}
	federationID, ours := strings.CutSuffix(parsed.TrustDomain().Name(), trustDomainSuffix)
	parts := strings.Split(strings.TrimPrefix(parsed.Path(), "/"), "/")
	agent := len(parts) == 5 && parts[2] == KindService && parts[3] == componentAgent
	if !ours || federationID == "" || (len(parts) != 4 && !agent) || parts[0] != "dc" || (parts[2] != KindService && parts[2] != KindWorkload) {
		return ID{}, fault.Invalid("spiffe_id", "%q is not spiffe://<federation>.konsul/dc/<dc>/svc|workload/<service>[/<node>]", uri)
	}
	id := ID{FederationID: federationID, Datacenter: parts[1], Kind: parts[2], Service: parts[3]}
	if agent {
		id.Node = parts[4]
	}
	return id, nil
}

// DatacenterURI returns the id an intermediate carries: it names the datacenter it signs for.
func DatacenterURI(federationID, datacenter string) string {
	return "spiffe://" + TrustDomain(federationID) + "/dc/" + datacenter
}

// SNI is a parsed server name.
type SNI struct {
	// Service is the component's name for control traffic, the workload's otherwise.
	Service     string
	Datacenter  string
	TrustDomain string
	// Control says it is <component>.control.<dc>.<trust domain>.
	Control bool
}

// ControlSNI returns the server name by which a component of a datacenter is reached through
// gateways.
func ControlSNI(component, dc, trustDomain string) string {
	return component + ".control." + dc + "." + trustDomain
}

// WorkloadSNI returns the server name by which a service of a datacenter is reached through
// gateways.
func WorkloadSNI(service, dc, trustDomain string) string {
	return service + "." + dc + "." + trustDomain
}

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ParseSNI reads a server name made by ControlSNI or WorkloadSNI. A trust domain is two labels, so
// the two forms differ in length and a workload may well be called "control".
func ParseSNI(name string) (SNI, error) {
	labels := strings.Split(strings.ToLower(name), ".")
	for _, l := range labels {
		if !label.MatchString(l) {
			return SNI{}, fault.Invalid("server_name", "%q has a malformed label", name)
		}
	}
	n := len(labels)
	if (n != 4 && n != 5) || "."+labels[n-1] != trustDomainSuffix || (n == 5 && labels[1] != "control") {
		return SNI{}, fault.Invalid("server_name", "%q is neither <component>.control.<dc>.<trust domain> nor <service>.<dc>.<trust domain>", name)
	}
	return SNI{
		Service: labels[0], Datacenter: labels[n-3], Control: n == 5,
		TrustDomain: fmt.Sprintf("%s.%s", labels[n-2], labels[n-1]),
	}, nil
}
