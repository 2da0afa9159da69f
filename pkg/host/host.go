// Package host reads what people write for the host of a service or a node: a name or an IP
// address.
//
// It looks nothing up. What it accepts can be dialled as it stands; what only looks like an address
// is refused, so that no resolver makes something else of it. Everything is safe for concurrent
// use.
package host

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

const (
	maxName  = 253
	maxLabel = 63
)

// Parse returns a host in its one form: an IP address as RFC 5952 writes it, an IPv4 address in
// IPv6 form as IPv4, a name as it is. The error says what is wrong with text, without naming it.
func Parse(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return parseAddr(addr.Unmap())
	}
	switch {
	case text == "":
		return "", errors.New("is empty")
	case strings.HasPrefix(text, "["):
		return "", errors.New("has brackets: write an IPv6 address without them, and the port apart")
	case strings.Count(text, ":") == 1:
		return "", errors.New("has a port: write that apart")
	case strings.Contains(text, ":"):
		return "", errors.New("is no IPv6 address")
	}
	return text, checkName(strings.TrimSuffix(text, "."))
}

func parseAddr(addr netip.Addr) (string, error) {
	switch {
	case addr.Zone() != "":
		return "", errors.New("has a zone, which means nothing on another machine")
	case addr.IsUnspecified():
		return "", errors.New("means every address of a machine, and nobody can dial it")
	case addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "", errors.New("is the address of many machines")
	}
	return addr.String(), nil
}

// checkName follows RFC 1123, with underscores as DNS has them. A last label that is a number makes
// an IPv4 address of the whole to resolvers and URLs, whatever stands before it.
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("has %d characters; a host name has at most %d", len(name), maxName)
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return fmt.Errorf("is no host name: its labels have 1 to %d characters", maxLabel)
		}
		if label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, strange) {
			return errors.New("is no host name: its labels are letters, digits and inner hyphens")
		}
		last = label
	}
	if isNumber(last) {
		return errors.New("looks like an IPv4 address and is none: write four numbers from 0 to 255, without leading zeros")
	}
	return nil
}

func strange(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// isNumber reports whether a label is a number to the WHATWG's URLs and to inet_aton.
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(strings.ToLower(label), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// NodeName returns what a node is called that is known by its address alone: the address, with an
// IPv6 address that begins or ends with a colon written out, since no name does.
func NodeName(address string) string {
	if strings.HasPrefix(address, ":") || strings.HasSuffix(address, ":") {
		if addr, err := netip.ParseAddr(address); err == nil {
			return addr.StringExpanded()
		}
	}
	return strings.TrimSuffix(address, ".")
}
