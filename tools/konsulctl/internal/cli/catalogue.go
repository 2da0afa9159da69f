package cli

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/host"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	wangossipv1 "konsul.dev/proto/gen/konsul/wangossip/v1"
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

// Rivals returns a line for each gossip member that claims a datacenter's name with another id.
func Rivals(dc *wangossipv1.Datacenter) []string {
	var lines []string
	for _, m := range dc.GetRivals() {
		lines = append(lines, fmt.Sprintf("%s at %s (%s) claims the name %s with another datacenter's id; nothing it says is taken for %s's",
			m.GetName(), m.GetAddress(), m.GetStatus(), dc.GetName(), dc.GetName()))
	}
	return lines
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
