// Package portcheck finds out, before anything starts, whether every address the lab needs is free.
//
// It binds and releases each address, so its answer is true for the moment it is given; a program
// that takes a port a moment later is reported by the service that then fails to bind it. Safe for
// concurrent use.
package portcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Need is one address that something is going to bind.
type Need struct {
	// Network is "tcp" or "udp".
	Network string
	// Address is host:port.
	Address string
	// Purpose says who wants it, e.g. "us-east gateway HTTP".
	Purpose string
}

// TakenError says that an address cannot be bound.
type TakenError struct {
	Need Need
	// Holder names the process that has it, when that can be found out; else empty.
	Holder string
	Cause  error
}

// Error names the address, its purpose and its holder.
func (e *TakenError) Error() string {
	if !errors.Is(e.Cause, syscall.EADDRINUSE) {
		return fmt.Sprintf("%s %s (%s) cannot be bound: %v", e.Need.Network, e.Need.Address, e.Need.Purpose, e.Cause)
	}
	holder := "another program"
	if e.Holder != "" {
		holder = e.Holder
	}
	return fmt.Sprintf("%s %s (%s) is taken by %s", e.Need.Network, e.Need.Address, e.Need.Purpose, holder)
}

// Unwrap returns why the address could not be bound.
func (e *TakenError) Unwrap() error { return e.Cause }

// Check returns every address that is not free, joined: each a *TakenError.
func Check(needs []Need) error {
	var errs []error
	for _, need := range needs {
		if err := bind(need); err != nil {
			errs = append(errs, &TakenError{Need: need, Holder: holder(need), Cause: err})
		}
	}
	return errors.Join(errs...)
}

// Bindable reports whether this machine lets a program listen on host at all.
func Bindable(host string) bool {
	return bind(Need{Network: "tcp", Address: net.JoinHostPort(host, "0")}) == nil
}

func bind(need Need) error {
	var sockets net.ListenConfig
	// Binding a loopback address does not wait for anything that a caller could cancel.
	ctx := context.Background()
	if need.Network == "udp" {
		conn, err := sockets.ListenPacket(ctx, need.Network, need.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	listener, err := sockets.Listen(ctx, need.Network, need.Address)
	if err != nil {
		return err
	}
	return listener.Close()
}
