package catalog

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"unicode"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Limits of what one registration may carry.
const (
	maxChecks    = 64
	maxTags      = 64
	maxMeta      = 64
	maxText      = 512
	maxOutput    = 4 << 10
	maxAddress   = 253
	maxPort      = 65535
	maxTargets   = 32
	maxCheckRuns = 1000
)

type rules struct {
	label, id *regexp.Regexp
}

func newRules() rules {
	return rules{
		label: regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`),
		id:    regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$`),
	}
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
	return errors.Join(
		r.identifier("node.name", n.GetName()),
		address("node.address", n.GetAddress()),
		meta("node.meta", n.GetMeta()),
	)
}

func (r rules) service(s *registryv1.Service, node string) error {
	var errs []error
	errs = append(errs,
		r.serviceName("service.name", s.GetName()),
		r.identifier("service.id", s.GetId()),
		meta("service.meta", s.GetMeta()),
		tags("service.tags", s.GetTags()),
	)
	if s.GetAddress() != "" {
		errs = append(errs, address("service.address", s.GetAddress()))
	}
	if s.GetPort() > maxPort {
		errs = append(errs, fault.Invalid("service.port", "%d is no port", s.GetPort()).WithRemedy("use 1 to 65535, or 0 for none"))
	}
	if s.GetNode() != node {
		errs = append(errs, fault.Invalid("service.node", "%q is not the node of this registration, %q", s.GetNode(), node).WithRemedy("leave it out"))
	}
	return errors.Join(errs...)
}

func (r rules) checks(checks []*registryv1.Check, service string) error {
	if len(checks) > maxChecks {
		return fault.Invalid("checks", "are %d; at most %d are allowed", len(checks), maxChecks)
	}
	var errs []error
	seen := map[string]bool{}
	for i, c := range checks {
		field := fmt.Sprintf("checks[%d]", i)
		errs = append(errs, r.identifier(field+".id", c.GetId()), status(field+".status", c.GetStatus(), true), output(field+".output", c.GetOutput()))
		if seen[c.GetId()] {
			errs = append(errs, fault.Invalid(field+".id", "%q is there twice", c.GetId()))
		}
		seen[c.GetId()] = true
		if c.GetServiceId() != "" && c.GetServiceId() != service {
			errs = append(errs, fault.Invalid(field+".service_id", "%q is not the service of this registration, %q", c.GetServiceId(), service).WithRemedy("leave it out"))
		}
	}
	return errors.Join(errs...)
}

func address(field, host string) error {
	bad := host == "" || len(host) > maxAddress || strings.ContainsFunc(host, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == '/'
	})
	if bad || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return fault.Invalid(field, "%q is no host", host).WithRemedy("use a host name or an IP address, without a port")
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
