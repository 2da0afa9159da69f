// Package konsultest is what the tests of several modules need and none owns.
package konsultest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreeAddress returns a loopback address, host:port, on which nobody listens. The host is drawn
// from 127.0.0.0/8 where the system has all of it, because a free port of 127.0.0.1 is soon some
// other test's, or the source of an outgoing connection.
func FreeAddress(t testing.TB) string {
	t.Helper()
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), 1+rand.IntN(250), 1+rand.IntN(250))
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatalf("no free loopback address: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatalf("close listener: %v", err)
	}
	return listener.Addr().String()
}
