package catalog

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/host"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Limits of what one registration may carry.
const (
	maxChecks    = 64
	maxTags      = 64
	maxMeta      = 64
	maxText      = 512
	maxOutput    = 4 << 10
	maxPort      = 65535
	maxTargets   = 32
	maxCheckRuns = 1000
	maxWeight    = 65535
	// A shorter time would pass between two packets, a longer one is a mistake.
	leastTTL   = 100 * time.Millisecond
	longestTTL = 24 * time.Hour
)

type rules struct{ label, id pattern }

// pattern is a form of names: letters and digits, and inside others too.
type pattern struct {
	upper bool
	inner string
	most  int
}

func newRules() rules {
	return rules{label: pattern{inner: "-", most: 63}, id: pattern{upper: true, inner: "._:-", most: 128}}
}

// MatchString reports whether a name has the form. Registrations ask for each name: a regular
// expression would take longer than the rest of the check.
func (p pattern) MatchString(name string) bool {
	if name == "" || len(name) > p.most {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', p.upper && c >= 'A' && c <= 'Z':
		case i > 0 && i < len(name)-1 && strings.IndexByte(p.inner, c) >= 0:
		default:
			return false
		}
	}
	return true
}

const (
	labelRemedy = "use a DNS label such as payment-api: lower-case letters, digits and inner hyphens, at most 63"
	idRemedy    = "use letters, digits and inner . _ : -, at most 128"
)

func (r rules) serviceName(field, name string) error {
	if !r.label.MatchString(name) {
		return fault.Invalid(field, "%q is no service name", name).WithRemedy(labelRemedy)
	}
	return nil
}

func (r rules) identifier(field, id string) error {
	if !r.id.MatchString(id) {
		return fault.Invalid(field, "%q is no id", id).WithRemedy(idRemedy)
	}
	return nil
}

func (r rules) node(n *registryv1.Node) error {
	if n == nil {
		return fault.Invalid("node", "is missing").WithRemedy("name the node the service runs on, with its address")
	}
	var liveness error
	if d := n.GetLivenessTtl(); d != nil && (!d.IsValid() || d.AsDuration() != 0) { // 0 ends the expectation.
		liveness = ttl("node.liveness_ttl", d)
	}
	return errors.Join(
		r.identifier("node.name", n.GetName()),
		optionalAddress("node.address", n.GetAddress()),
		meta("node.meta", n.GetMeta()),
		liveness,
	)
}

func (r rules) service(field string, s *registryv1.Service, node string) error {
	var badPort, badNode error
	if s.GetPort() > maxPort {
		badPort = fault.Invalid(field+".port", "%d is no port", s.GetPort()).WithRemedy("use 1 to 65535, or 0 for none")
	}
	if s.GetNode() != node {
		badNode = fault.Invalid(field+".node", "%q is not the node of this registration, %q", s.GetNode(), node).WithRemedy("leave it out")
	}
	return errors.Join(
		r.serviceName(field+".name", s.GetName()),
		r.identifier(field+".id", s.GetId()),
		meta(field+".meta", s.GetMeta()),
		tags(field+".tags", s.GetTags()),
		weigh(field+".weights", s.GetWeights()),
		optionalAddress(field+".address", s.GetAddress()),
		badPort, badNode,
	)
}

func (r rules) checks(list string, checks []*registryv1.Check, of owner) error {
	if len(checks) > maxChecks {
		return fault.Invalid(list, "are %d; at most %d are allowed", len(checks), maxChecks)
	}
	if len(checks) == 0 {
		return nil
	}
	var errs []error
	seen := map[string]bool{}
	for i, c := range checks {
		if r.check("", c, of) != nil { // Names of fields are made when they are needed.
			errs = append(errs, r.check(fmt.Sprintf("%s[%d]", list, i), c, of))
		}
		if seen[c.GetId()] {
			errs = append(errs, fault.Invalid(fmt.Sprintf("%s[%d].id", list, i), "%q is there twice", c.GetId()))
		}
		seen[c.GetId()] = true
	}
	return errors.Join(errs...)
}

func (r rules) check(field string, c *registryv1.Check, of owner) error {
	errs := []error{
		r.identifier(field+".id", c.GetId()), status(field+".status", c.GetStatus(), true), output(field+".output", c.GetOutput()), ttl(field+".ttl", c.GetTtl()),
	}
	if c.GetServiceId() != "" && c.GetServiceId() != of.service {
		errs = append(errs, fault.Invalid(field+".service_id", "%q is not the service of this registration, %q", c.GetServiceId(), of.service).WithRemedy("leave it out"))
	}
	if c.GetNode() != "" && c.GetNode() != of.node {
		errs = append(errs, fault.Invalid(field+".node", "%q is not whose check this is", c.GetNode()).WithRemedy("leave it out"))
	}
	return errors.Join(errs...)
}

func ttl(field string, d *durationpb.Duration) error {
	if d == nil {
		return nil
	}
	if t := d.AsDuration(); !d.IsValid() || t < leastTTL || t > longestTTL {
		return fault.Invalid(field, "%v is not between %v and %v", t, leastTTL, longestTTL).WithRemedy("use a few times the interval of the reports, such as 30s")
	}
	return nil
}

func weigh(field string, w *registryv1.Weights) error {
	if w != nil && (w.GetPassing() < 1 || w.GetPassing() > maxWeight || w.GetWarning() > maxWeight) {
		return fault.Invalid(field, "%d and %d are no weights", w.GetPassing(), w.GetWarning()).WithRemedy("use 1 to 65535 while passing and 0 to 65535 while warning, or leave the weights out")
	}
	return nil
}

// optionalAddress checks an address that may be left out.
func optionalAddress(field, text string) error {
	if text == "" {
		return nil
	}
	if _, err := host.Parse(text); err != nil {
		return fault.Invalid(field, "%q %v", text, err).WithRemedy("use a host name or an IP address, without a port")
	}
	return nil
}

func meta(field string, m map[string]string) error {
	if len(m) > maxMeta {
		return fault.Invalid(field, "has %d keys; at most %d are allowed", len(m), maxMeta)
	}
	for k, v := range m {
		if k == "" || len(k) > maxText || len(v) > maxText {
			return fault.Invalid(field, "has an empty key, or a key or value of more than %d bytes", maxText)
		}
	}
	return nil
}

func tags(field string, tags []string) error {
	if len(tags) > maxTags {
		return fault.Invalid(field, "are %d; at most %d are allowed", len(tags), maxTags)
	}
	for _, tag := range tags {
		if tag == "" || len(tag) > maxText {
			return fault.Invalid(field, "hold an empty tag, or one of more than %d bytes", maxText)
		}
	}
	return nil
}

func status(field string, s registryv1.HealthStatus, optional bool) error {
	_, known := registryv1.HealthStatus_name[int32(s)]
	if !known || s == registryv1.HealthStatus_HEALTH_STATUS_UNSPECIFIED && !optional {
		return fault.Invalid(field, "%v is no status", s).WithRemedy("use passing, warning or critical")
	}
	return nil
}

func output(field, text string) error {
	if len(text) > maxOutput {
		return fault.Invalid(field, "is %d bytes long; at most %d are allowed", len(text), maxOutput).WithRemedy("cut it")
	}
	return nil
}
