package proxy

import (
	"net"
	"net/http"
	"strings"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/services/failover-router/internal/verdict"
)

// headerService names the wanted service when Host cannot.
const headerService = "X-Konsul-Service"

const zone = "konsul"

// wanted reads which service a request is for: the header, else the host, which is a service's name
// or its name in DNS: <service>.service.konsul or <service>.service.<datacenter>.konsul.
func wanted(r *http.Request) (verdict.Request, error) {
	if r.Method == http.MethodConnect {
		return verdict.Request{}, fault.Invalid("method", "CONNECT is not served: this proxy chooses where requests go").
			WithRemedy("send the request itself, in plain HTTP")
	}
	if name := r.Header.Get(headerService); name != "" {
		return verdict.Request{Service: name}, nil
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || net.ParseIP(host) != nil {
		return verdict.Request{}, nameless(r.Host)
	}
	labels := strings.Split(host, ".")
	switch n := len(labels); {
	case n == 1:
		return verdict.Request{Service: host}, nil
	case n == 3 && labels[1] == "service" && labels[2] == zone:
		return verdict.Request{Service: labels[0]}, nil
	case n == 4 && labels[1] == "service" && labels[3] == zone && config.ValidDatacenter(labels[2]):
		return verdict.Request{Service: labels[0], Datacenter: labels[2]}, nil
	default:
		return verdict.Request{}, nameless(r.Host)
	}
}

func nameless(host string) error {
	return fault.Invalid("Host", "%q names no service", host).
		WithRemedy("send Host: <service> or <service>.service.konsul, or the header " + headerService)
}
