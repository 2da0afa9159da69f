package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/loopguard"
)

// Dialer opens the connections behind the proxy.
type Dialer struct {
	Identity identity.Source
	// Gateways are the own datacenter's gateways.
	Gateways []string
	// Loops refuses to dial the proxy itself.
	Loops *loopguard.Guard
	// DialTimeout bounds a connection with its handshake; ResponseTimeout the wait for a response's
	// header.
	DialTimeout, ResponseTimeout time.Duration
}

const (
	idlePerHost = 32
	idleTimeout = 60 * time.Second
	// gatewayName is who must be at the other end of a connection to another datacenter: it ends
	// the mutual TLS there.
	gatewayName = "gateway"
)

// transport returns a transport that reaches instances of the own datacenter directly (http), and
// services of other datacenters through the gateways (https, with the host as server name).
func (d Dialer) transport() *http.Transport {
	dialer := &net.Dialer{Timeout: d.DialTimeout, Control: d.Loops.Control}
	return &http.Transport{
		DialContext:           dialer.DialContext,
		DialTLSContext:        func(ctx context.Context, _, address string) (net.Conn, error) { return d.dialGateway(ctx, address) },
		ResponseHeaderTimeout: d.ResponseTimeout,
		MaxIdleConnsPerHost:   idlePerHost,
		IdleConnTimeout:       idleTimeout,
		// What an instance sends is passed on as it is.
		DisableCompression: true,
	}
}

// dialGateway connects to a service of another datacenter by way of the first gateway that takes us
// there.
func (d Dialer) dialGateway(ctx context.Context, address string) (net.Conn, error) {
	serverName, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", address, err)
	}
	sni, err := identity.ParseSNI(serverName)
	if err != nil {
		return nil, err
	}
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Resolver: new(net.Resolver)}, // asks anew for names; bounded for each gateway below, with its handshake
		Config:    d.Identity.ClientTLS(identity.Want{Datacenter: sni.Datacenter, Service: gatewayName}, serverName),
	}
	var errs []error
	for _, gateway := range d.Gateways {
		conn, err := d.dial(ctx, dialer, gateway)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("gateway %s: %w", gateway, err))
	}
	return nil, fmt.Errorf("reach %s: %w", serverName, errors.Join(errs...))
}

func (d Dialer) dial(ctx context.Context, dialer *tls.Dialer, gateway string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.DialTimeout)
	defer cancel()
	return dialer.DialContext(ctx, "tcp", gateway)
}
