package cli

import (
	"cmp"
	"net"
	"strconv"
	"strings"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/host"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// AddressOf returns where an instance is reached: its address, or that of its node.
func AddressOf(i *registryv1.ServiceInstance) string {
	host := cmp.Or(i.GetService().GetAddress(), i.GetNode().GetAddress())
	if i.GetService().GetPort() == 0 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(i.GetService().GetPort())))
}

// StatusOf returns a status as people write it.
func StatusOf(s registryv1.HealthStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "HEALTH_STATUS_"))
}

// WatchedStatus returns an instance's status, and that it means little when nobody watches over it.
func WatchedStatus(i *registryv1.ServiceInstance) string {
	if i.GetUnchecked() {
		return StatusOf(i.GetStatus()) + " (no checks)"
	}
	return StatusOf(i.GetStatus())
}

// HostIn reads a host that was typed into a flag, in its one form.
func HostIn(flag, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	canonical, err := host.Parse(text)
	if err != nil {
		return "", fault.Invalid(flag, "%q %v", text, err).WithRemedy("write a host name or an IP address, such as 10.0.0.5 or 2001:db8::1")
	}
	return canonical, nil
}
