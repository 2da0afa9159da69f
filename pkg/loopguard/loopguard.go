// Package loopguard keeps a proxy from dialling itself: a backend registered at the proxy's own
// address would have it answer its own requests until it has no sockets left. It sees addresses
// after names have been resolved, at the moment of the dial. A Guard never changes and is safe for
// concurrent use.
package loopguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// ErrOwnAddress means that a dial would have led back to this process.
var ErrOwnAddress = errors.New("the address is the proxy's own")

// Guard knows where a process listens.
type Guard struct{ own []netip.AddrPort }

// New returns a guard over listeners' addresses; those of other networks than TCP are left out.
func New(listeners ...net.Addr) *Guard {
	g := &Guard{}
	for _, listener := range listeners {
		if own, err := netip.ParseAddrPort(listener.String()); err == nil {
			g.own = append(g.own, netip.AddrPortFrom(own.Addr().Unmap(), own.Port()))
		}
	}
	return g
}

// Control is for net.Dialer: it fails with ErrOwnAddress before such a connection is made.
func (g *Guard) Control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err == nil && g.isOwn(target.Addr().Unmap(), target.Port()) {
		return fmt.Errorf("%s: %w", address, ErrOwnAddress)
	}
	return nil
}

func (g *Guard) isOwn(target netip.Addr, port uint16) bool {
	return slices.ContainsFunc(g.own, func(own netip.AddrPort) bool {
		switch {
		case own.Port() != port:
			return false
		case own.Addr() == target:
			return true
		case target.IsUnspecified(): // the kernel takes it for loopback
			return own.Addr().IsUnspecified() || own.Addr().IsLoopback()
		default:
			return own.Addr().IsUnspecified() && local(target)
		}
	})
}

// local reports whether an address is this host's.
func local(target netip.Addr) bool {
	if target.IsLoopback() {
		return true
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addresses, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == target.WithZone("")
	})
}
