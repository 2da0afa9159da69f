package rpc

import (
	"context"
	"fmt"
	"net"
	"time"
)

// lookupTimeout bounds a question for a name. A name server far away that does not know the name
// may take half a minute, and who asks meanwhile would wait for the same answer: a name that exists
// by now is found by the next question.
const lookupTimeout = time.Second

// Lookup returns the addresses of a host.
type Lookup func(ctx context.Context, host string) ([]string, error)

// freshLookup asks anew each time; the standard resolver joins a question that is on its way.
func freshLookup(ctx context.Context, host string) ([]string, error) {
	return (&net.Resolver{}).LookupHost(ctx, host)
}

// dialer opens connections to host:port, asking for the host's addresses anew each time.
func dialer(lookup Lookup) func(ctx context.Context, address string) (net.Conn, error) {
	if lookup == nil {
		lookup = freshLookup
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", address, err)
		}
		addrs := []string{host}
		if net.ParseIP(host) == nil {
			asking, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			if addrs, err = lookup(asking, host); err != nil {
				return nil, fmt.Errorf("look up %s: %w", host, err)
			}
		}
		for i, addr := range addrs {
			var conn net.Conn
			if conn, err = dialOne(ctx, net.JoinHostPort(addr, port), len(addrs)-i); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
}

// dialOne dials the next of so many addresses, within its part of the time that is left.
func dialOne(ctx context.Context, address string, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}
