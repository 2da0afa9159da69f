package konsul

import (
	"cmp"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
)

// The environment variables ConfigFromEnv reads.
const (
	// EnvAddr holds the gateways, "https://host:8500", or several of them with commas between.
	EnvAddr = "KONSUL_ADDR"
	// EnvToken holds the bearer token.
	EnvToken = "KONSUL_TOKEN"
	// EnvCAFile names the PEM file with the federation's roots.
	EnvCAFile = "KONSUL_CA_FILE"
)

// DefaultTimeout bounds a call, its retries included, unless Config says otherwise.
const DefaultTimeout = 10 * time.Second

// Local names the datacenter of the gateway that is asked, wherever a datacenter may be named.
const Local = "local"

// Config says how to reach a federation.
type Config struct {
	// Addresses of gateways, "https://host:8500", in order of preference: the first that can be
	// reached is used, and when it is lost the list is tried again from its start. The default port
	// is 8500.
	Addresses []string
	// Token is the bearer token every call carries.
	Token string
	// CAFile is a PEM file with the roots to trust; empty: the system's. It is read once, by New.
	CAFile string
	// Datacenter is asked when a call names none; empty or Local: that of the gateway.
	Datacenter string
	// Timeout bounds each call, its retries included; a context that ends earlier wins, and a
	// blocking read gets its wait on top. Zero: DefaultTimeout.
	Timeout time.Duration
	// DisableBatching sends every call by itself. Otherwise key-value calls made at the same time
	// go together, none of them waiting for company.
	DisableBatching bool
	// DialOptions are appended to the client's own, for tracing and the like.
	DialOptions []grpc.DialOption
}

// ConfigFromEnv reads the environment. KONSUL_ADDR and KONSUL_TOKEN must be set; without
// KONSUL_CA_FILE the system's roots are trusted. Errors name the variable and the remedy.
func ConfigFromEnv() (Config, error) { return ConfigFromLookup(os.LookupEnv) }

// ConfigFromLookup is ConfigFromEnv over any source of variables, such as flags that override some.
func ConfigFromLookup(lookup func(name string) (value string, ok bool)) (Config, error) {
	get := func(name string) string {
		value, _ := lookup(name)
		return strings.TrimSpace(value)
	}
	cfg := Config{Token: get(EnvToken), CAFile: get(EnvCAFile)}
	for address := range strings.SplitSeq(get(EnvAddr), ",") {
		if address = strings.TrimSpace(address); address != "" {
			cfg.Addresses = append(cfg.Addresses, address)
		}
	}
	_, err := cfg.resolve(names{addresses: EnvAddr, token: EnvToken, caFile: EnvCAFile})
	return cfg, err
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	_, err := c.resolve(names{addresses: "Addresses", token: "Token", caFile: "CAFile"})
	return err
}

// names is what the caller knows the settings by.
type names struct{ addresses, token, caFile string }

// resolved is a Config made ready for use.
type resolved struct {
	gateways []gateway
	roots    *x509.CertPool // nil: the system's
}

// gateway is one address: what to dial and which name its certificate must carry.
type gateway struct{ addr, host string }

func (c Config) resolve(name names) (resolved, error) {
	var r resolved
	var errs []error
	if len(c.Addresses) == 0 {
		errs = append(errs, fault.Invalid(name.addresses, "is not set").
			WithRemedy("name a gateway, such as https://127.0.0.1:8500; the lab writes it to .lab/<datacenter>.env"))
	}
	for _, address := range c.Addresses {
		g, err := parseGateway(name.addresses, address)
		r.gateways, errs = append(r.gateways, g), append(errs, err)
	}
	switch {
	case c.Token == "":
		errs = append(errs, fault.Invalid(name.token, "is not set").
			WithRemedy("give the bearer token; the lab writes one to .lab/<datacenter>.env"))
	case strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		errs = append(errs, fault.Invalid(name.token, "has characters no token has").
			WithRemedy("give the token alone, without quotes, spaces or line ends"))
	}
	if dc := c.datacenter(""); dc != "" && !config.ValidDatacenter(dc) {
		errs = append(errs, fault.Invalid("Datacenter", "%q is no datacenter name", dc))
	}
	if c.Timeout < 0 {
		errs = append(errs, fault.Invalid("Timeout", "%s is negative", c.Timeout))
	}
	if c.CAFile != "" {
		roots, err := loadRoots(name.caFile, c.CAFile)
		r.roots, errs = roots, append(errs, err)
	}
	return r, errors.Join(errs...)
}

// datacenter returns the datacenter to name in a request: empty stands for the gateway's own.
func (c Config) datacenter(asked string) string {
	dc := cmp.Or(asked, c.Datacenter)
	if dc == Local {
		return ""
	}
	return dc
}

func parseGateway(field, address string) (gateway, error) {
	const remedy = "write https://host:8500"
	u, err := url.Parse(address)
	if err != nil {
		return gateway{}, fault.Invalid(field, "%q is no URL", address).WithRemedy(remedy)
	}
	switch {
	case u.Scheme == "http":
		return gateway{}, fault.Invalid(field, "%q asks for plaintext, which gateways do not speak", address).WithRemedy(remedy)
	case u.Scheme != "https" || u.Hostname() == "":
		return gateway{}, fault.Invalid(field, "%q is no https URL", address).WithRemedy(remedy)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return gateway{}, fault.Invalid(field, "%q has more than a host and a port", address).WithRemedy(remedy)
	}
	port := cmp.Or(u.Port(), strconv.Itoa(config.PortHTTP))
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return gateway{}, fault.Invalid(field, "%q has no valid port", address).WithRemedy(remedy)
	}
	return gateway{addr: net.JoinHostPort(u.Hostname(), port), host: u.Hostname()}, nil
}

func loadRoots(field, path string) (*x509.CertPool, error) {
	const remedy = "name the PEM file with the federation's roots; the lab writes its path to .lab/<datacenter>.env"
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Invalid(field, "cannot be read").WithRemedy(remedy).Wrap(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fault.Invalid(field, "%s holds no PEM certificate", path).WithRemedy(remedy)
	}
	return roots, nil
}
