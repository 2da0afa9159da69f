package loopguard_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/loopguard"
)

func TestOwnAddressesAreNotDialled(t *testing.T) {
	for name, c := range map[string]struct {
		listen string
		target string
		own    bool
	}{
		"the same":                        {"127.0.0.1:8553", "127.0.0.1:8553", true},
		"another port":                    {"127.0.0.1:8553", "127.0.0.1:8554", false},
		"another address":                 {"127.0.0.1:8553", "127.0.0.2:8553", false},
		"elsewhere":                       {"0.0.0.0:8553", "192.0.2.1:8553", false},
		"every address, by loopback":      {"0.0.0.0:8553", "127.0.0.9:8553", true},
		"every address, by IPv6 loopback": {"[::]:8553", "[::1]:8553", true},
		"no address":                      {"127.0.0.1:8553", "0.0.0.0:8553", true},
		"no address, none of ours":        {"192.0.2.7:8553", "0.0.0.0:8553", false},
		"IPv4 in IPv6":                    {"[::ffff:127.0.0.1]:8553", "127.0.0.1:8553", true},
	} {
		t.Run(name, func(t *testing.T) {
			listen, err := net.ResolveTCPAddr("tcp", c.listen)
			require.NoError(t, err)
			err = loopguard.New(listen).Control("tcp", c.target, nil)
			if c.own {
				require.ErrorIs(t, err, loopguard.ErrOwnAddress)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func TestANameOfItsOwnIsSeenThrough(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	dialer := net.Dialer{Control: loopguard.New(listener.Addr()).Control}
	_, err = dialer.Dial("tcp4", net.JoinHostPort("localhost", port))
	require.ErrorIs(t, err, loopguard.ErrOwnAddress)
	conn, err := (&net.Dialer{}).Dial("tcp4", net.JoinHostPort("localhost", port))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

func TestAHostsOwnInterfacesAreItsOwn(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	guard := loopguard.New(&net.TCPAddr{IP: net.IPv4zero, Port: 8553})
	for _, a := range addresses {
		ip, _, err := net.ParseCIDR(a.String())
		require.NoError(t, err)
		if !ip.IsLinkLocalUnicast() {
			require.ErrorIs(t, guard.Control("tcp", net.JoinHostPort(ip.String(), "8553"), nil), loopguard.ErrOwnAddress)
		}
	}
}
