package servicedef

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/host"
)

// Defaults and limits of checks.
const (
	DefaultInterval = 10 * time.Second
	DefaultTimeout  = 5 * time.Second
	// MinDuration is the shortest interval, timeout or TTL: anything less is load, not observation.
	MinDuration = 100 * time.Millisecond
	// MaxSize is the largest definition Parse reads, in bytes.
	MaxSize = 1 << 20
)

// Definition is one instance of a service.
type Definition struct {
	// Name is the service's name, a DNS label.
	Name string
	// ID tells instances of one datacenter apart; the default is Name.
	ID string
	// Datacenter, if given, must be the datacenter in which the definition is used.
	Datacenter string
	// Address is a host or IP; empty: the node's.
	Address string
	// Port is 0 when the service listens on none.
	Port uint16
	Tags []string
	Meta map[string]string
	// Checks have ids that are unique in the definition.
	Checks []Check
	// Failover is the service's policy, in order of preference; empty: the definition says nothing
	// about it.
	Failover []Target
}

// Check watches over the instance. Exactly one of HTTP, TCP and TTL is set.
type Check struct {
	// ID defaults to the kind of check: "http", "tcp" or "ttl".
	ID   string
	Name string
	// HTTP is a URL that answers with a status of 200 to 299 while the instance is well.
	HTTP string
	// TCP is a host:port that accepts connections while the instance is well.
	TCP string
	// TTL is how long the instance counts as well after it last reported so itself.
	TTL time.Duration
	// Interval is the time between runs of an HTTP or TCP check.
	Interval time.Duration
	// Timeout is how long a run of an HTTP or TCP check may take.
	Timeout time.Duration
}

// Kind returns "http", "tcp" or "ttl".
func (c Check) Kind() string {
	switch {
	case c.HTTP != "":
		return "http"
	case c.TCP != "":
		return "tcp"
	default:
		return "ttl"
	}
}

// Target is one step of a failover policy.
type Target struct {
	Datacenter string
	// Targets caps how many instances are used there; 0: all.
	Targets uint32
}

// IsDefinition reports whether a file of this name is one that definitions are written in, be it
// that they cannot be read yet.
func IsDefinition(name string) bool {
	switch extension(name) {
	case ".yaml", ".yml", ".json", ".hcl":
		return true
	}
	return false
}

func extension(name string) string { return strings.ToLower(filepath.Ext(name)) }

// Load reads the one definition in a file. Problems of its content are InvalidArgument faults.
func Load(path string) (*Definition, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read service definition: %w", err)
	}
	definitions, err := ParseFile(path, data)
	if err == nil && len(definitions) > 1 {
		err = fault.Invalid("services", "are %d; one is taken here", len(definitions)).
			WithRemedy("write each into a file of its own, or give the file to the node's agent (services_dir)")
	}
	if err != nil {
		return nil, fmt.Errorf("service definition %s: %w", path, err)
	}
	return definitions[0], nil
}

// ParseFile is Parse of a file of some name, which says what it is written in.
func ParseFile(name string, data []byte) ([]*Definition, error) {
	if extension(name) == ".hcl" {
		return nil, fault.Invalid("", "HCL is not read yet").WithRemedy("write the definition as YAML or JSON, with the key `service` or `services`")
	}
	return Parse(data)
}

// Parse reads the definitions in YAML or JSON: documents with the one key `service`, or `services`
// with a list. It fills the defaults and reports every problem at once. There is at least one
// definition, and their ids are different.
func Parse(data []byte) ([]*Definition, error) {
	p := &problems{}
	var definitions []*Definition
	seen := map[string]bool{}
	add := func(service value) {
		d := &Definition{}
		service.definition(d)
		if seen[d.ID] && d.ID != "" {
			p.add(service.path+".id", "%q is the id of an earlier service in the file", d.ID).remedy("give each instance of the datacenter an id of its own")
		}
		seen[d.ID] = true
		definitions = append(definitions, d)
	}
	for _, root := range p.documents(data) {
		fields := root.fields("service", "services")
		service, one := fields["service"]
		list, many := fields["services"]
		switch {
		case one && many:
			p.add(list.path, "is there beside service").remedy("keep one of them")
		case one:
			add(service)
		case many:
			items := list.items()
			if list.node.Kind == yaml.SequenceNode && len(items) == 0 {
				p.add(list.path, "is empty").remedy("write a service with at least a name into it")
			}
			for _, item := range items {
				add(item)
			}
		default:
			p.add(root.prefix+"service", "is missing").remedy("write `service:` with at least a name below it")
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return definitions, nil
}

func (v value) definition(d *Definition) {
	if !v.isMap() {
		return
	}
	f := v.fields("name", "id", "datacenter", "address", "port", "tags", "meta", "checks", "failover")
	if name, ok := f["name"]; ok {
		d.Name = name.matching(label, remedyLabel)
	} else {
		v.problems.add(v.path+".name", "is missing").remedy(remedyLabel)
	}
	d.ID = d.Name
	if id, ok := f["id"]; ok {
		d.ID = id.matching(identifier, remedyIdentifier)
	}
	if dc, ok := f["datacenter"]; ok {
		d.Datacenter = dc.matching(label, remedyLabel)
	}
	if address, ok := f["address"]; ok {
		d.Address = address.host()
	}
	if port, ok := f["port"]; ok {
		d.Port = uint16(port.number(1, 65535))
	}
	for _, tag := range f["tags"].items() {
		d.Tags = append(d.Tags, tag.matching(text, "write a tag of 1 to 128 printable characters"))
	}
	d.Meta = f["meta"].meta()
	d.Checks = f["checks"].checks()
	d.Failover = f["failover"].targets()
}

func (v value) checks() []Check {
	var checks []Check
	seen := map[string]bool{}
	for _, item := range v.items() {
		if !item.isMap() {
			continue
		}
		check := item.check()
		if seen[check.ID] && check.ID != "" {
			v.problems.add(item.path+".id", "%q is the id of an earlier check", check.ID).remedy("give each check of the service an id of its own")
		}
		seen[check.ID] = true
		checks = append(checks, check)
	}
	return checks
}

func (v value) check() Check {
	f := v.fields("id", "name", "http", "tcp", "ttl", "interval", "timeout")
	var c Check
	kinds := 0
	if target, ok := f["http"]; ok {
		kinds++
		c.HTTP = target.url()
	}
	if target, ok := f["tcp"]; ok {
		kinds++
		c.TCP = target.hostPort()
	}
	ttl, isTTL := f["ttl"]
	if isTTL {
		kinds++
		c.TTL = ttl.duration()
	}
	if kinds != 1 {
		v.problems.add(v.path, "has %d of http, tcp and ttl", kinds).remedy("give each check exactly one of them")
	}
	c.ID = c.Kind()
	if id, ok := f["id"]; ok {
		c.ID = id.matching(identifier, remedyIdentifier)
	}
	if name, ok := f["name"]; ok {
		c.Name = name.matching(text, "write a name of 1 to 128 printable characters")
	}
	if isTTL {
		for _, key := range []string{"interval", "timeout"} {
			if extra, ok := f[key]; ok {
				v.problems.add(extra.path, "means nothing for a ttl check").remedy("remove it")
			}
		}
		return c
	}
	c.Interval, c.Timeout = DefaultInterval, DefaultTimeout
	if interval, ok := f["interval"]; ok {
		c.Interval = interval.duration()
		c.Timeout = min(c.Timeout, max(c.Interval, MinDuration))
	}
	if timeout, ok := f["timeout"]; ok {
		c.Timeout = timeout.duration()
	}
	return c
}

func (v value) targets() []Target {
	var targets []Target
	seen := map[string]bool{}
	for _, item := range v.items() {
		if !item.isMap() {
			continue
		}
		f := item.fields("datacenter", "targets")
		var t Target
		if dc, ok := f["datacenter"]; ok {
			t.Datacenter = dc.matching(label, remedyLabel)
		} else {
			v.problems.add(item.path+".datacenter", "is missing").remedy("name the datacenter to fail over to")
		}
		if n, ok := f["targets"]; ok {
			t.Targets = uint32(n.number(0, 1_000_000))
		}
		if seen[t.Datacenter] && t.Datacenter != "" {
			v.problems.add(item.path+".datacenter", "%q is listed twice", t.Datacenter).remedy("list each datacenter once, in order of preference")
		}
		seen[t.Datacenter] = true
		targets = append(targets, t)
	}
	return targets
}

var (
	label      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	identifier = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$`)
	text       = regexp.MustCompile(`^[^\pC]{1,128}$`)
)

const (
	remedyLabel      = "use a DNS label such as payment-api: lower-case letters, digits and inner hyphens, at most 63"
	remedyIdentifier = "use letters, digits and inner . _ : -, at most 128"
)

func (v value) host() string {
	s := v.string()
	canonical, err := host.Parse(s)
	if err != nil {
		v.problems.add(v.path, "%q %v", s, err).remedy("write a host name or an IP address alone; the port has its own key")
	}
	return canonical
}

func (v value) hostPort() string {
	s := v.string()
	host, port, err := net.SplitHostPort(s)
	if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || n == 0 || host == "" {
		v.problems.add(v.path, "%q is no address", s).remedy("write host:port, such as 127.0.0.1:8080")
	}
	return s
}

func (v value) url() string {
	s := v.string()
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		v.problems.add(v.path, "%q is no http or https URL", s).remedy("write a URL such as http://127.0.0.1:8080/health")
	}
	return s
}

func (v value) duration() time.Duration {
	s := v.string()
	d, err := time.ParseDuration(s)
	if err != nil || d < MinDuration {
		v.problems.add(v.path, "%q is no duration of at least %s", s, MinDuration).remedy("write a duration such as 2s or 500ms")
		return 0
	}
	return d
}

// ValidName reports whether a service may be called so: its name is a DNS label of workload
// addresses.
func ValidName(name string) bool { return label.MatchString(name) }

// CheckDatacenter returns an InvalidArgument fault unless the definition may be used in a
// datacenter.
func (d *Definition) CheckDatacenter(own string) error {
	if dc := cmp.Or(d.Datacenter, own); dc != own {
		return fault.Invalid("service.datacenter", "is %q, but this is datacenter %q", dc, own).
			WithRemedy("put the definition where it belongs, or remove service.datacenter")
	}
	return nil
}
