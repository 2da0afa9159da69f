package portcheck_test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/tools/lab/internal/portcheck"
)

func TestFreeAddressesPass(t *testing.T) {
	require.NoError(t, portcheck.Check([]portcheck.Need{
		{Network: "tcp", Address: "127.0.0.1:0"},
		{Network: "udp", Address: "127.0.0.1:0"},
	}))
}

func TestEveryTakenAddressIsNamed(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = tcp.Close() })
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = udp.Close() })

	err = portcheck.Check([]portcheck.Need{
		{Network: "tcp", Address: tcp.Addr().String(), Purpose: "us-east gateway HTTP"},
		{Network: "udp", Address: udp.LocalAddr().String(), Purpose: "us-east gossip"},
	})
	require.ErrorContains(t, err, "tcp "+tcp.Addr().String()+" (us-east gateway HTTP) is taken by")
	require.ErrorContains(t, err, "udp "+udp.LocalAddr().String()+" (us-east gossip) is taken by")
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

func TestTheHolderIsNamed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	for name, host := range map[string]string{"the same address": "127.0.0.1", "every address": ""} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", host+":0")
			require.NoError(t, err)
			t.Cleanup(func() { _ = listener.Close() })
			_, port, err := net.SplitHostPort(listener.Addr().String())
			require.NoError(t, err)

			err = portcheck.Check([]portcheck.Need{{Network: "tcp", Address: "127.0.0.1:" + port}})
			taken, ok := errors.AsType[*portcheck.TakenError](err)
			require.True(t, ok)
			require.Contains(t, taken.Holder, "pid "+strconv.Itoa(os.Getpid()))
		})
	}
}

func TestAnAddressOfNobodyIsNotBindable(t *testing.T) {
	require.True(t, portcheck.Bindable("127.0.0.1"))
	// TEST-NET-3 belongs to documentation, not to this machine's interfaces.
	require.False(t, portcheck.Bindable("203.0.113.254"))
}
