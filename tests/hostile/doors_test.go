package hostile_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/identity"
	"konsul.dev/tests/framework"
	"konsul.dev/tests/hostile/attack"
)

// get returns good traffic: a call over a connection of its own, from an address of its own.
func get(t *testing.T, d *attack.Datacenter, from, path string) func(context.Context) error {
	t.Helper()
	client := d.Access().HTTP(t)
	transport, ok := client.Transport.(*http.Transport)
	require.True(t, ok)
	transport.DisableKeepAlives = true
	transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Access().Addr+path, http.NoBody)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+d.Access().Token)
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("answered %s", response.Status)
		}
		return nil
	}
}

// silent opens connections that say nothing, from the attacker's address, and holds them until the
// test ends.
func silent(t *testing.T, address string, n int) {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.66")}, Timeout: 5 * time.Second}
	for range n {
		conn, err := dialer.Dial("tcp", address)
		if err != nil {
			continue // refused, or its backlog is full: the attacker goes on
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	n, err := attack.Descriptors(pid)
	require.NoError(t, err)
	return n
}

func TestSilentCallersAndClosedPairs(t *testing.T) {
	d := attack.Start(t, attack.Options{})
	gateway := d.Pid(attack.Gateway)
	certificate := d.Certificate(attack.Gateway)
	require.NotEmpty(t, certificate.Leaf.URIs)
	registry := &tls.Config{
		ServerName:   identity.ControlSNI(attack.Registry, "us-east", certificate.Leaf.URIs[0].Host),
		Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // what is asked is whether bytes get there
	}
	reach := func() (*tls.Conn, error) {
		return tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", d.Addr(config.PortGateway), registry)
	}

	for name, c := range map[string]struct {
		port    int
		service string
	}{
		"silent hellos at 8443":  {config.PortGateway, attack.Gateway},
		"silent callers at 8500": {config.PortHTTP, attack.Gateway},
		"silent peers at 8300":   {config.PortRaft, attack.Registry},
	} {
		t.Run(name, func(t *testing.T) {
			good := attack.GoodTraffic(t, 50*time.Millisecond, get(t, d, "127.0.0.1", "/api/v1/acl/self"))
			stop := attack.Watch(t, d.Pid(c.service))
			silent(t, d.Addr(c.port), 9000)
			conn, err := reach()
			require.NoError(t, err, "8443 serves meanwhile")
			require.NoError(t, conn.Close())
			seen, served := stop(), good()
			require.LessOrEqual(t, seen.PeakDescriptors, seen.DescriptorsBefore+400, "256 half-open ones of one address at most, and our own")
			require.LessOrEqual(t, seen.Grown(), int64(64*attack.MiB))
			require.Zero(t, served.Failed, served.Last)
			require.Less(t, served.Slowest, 2*time.Second)
		})
	}

	t.Run("connections that close are freed", func(t *testing.T) {
		const pairs = 400
		before := descriptors(t, gateway)
		var held []*tls.Conn
		for range pairs {
			conn, err := reach()
			require.NoError(t, err)
			held = append(held, conn)
		}
		require.LessOrEqual(t, descriptors(t, gateway)-before, 2*pairs+50, "two for each")
		for _, conn := range held {
			require.NoError(t, conn.NetConn().Close())
		}
		framework.Eventually(t, 10*time.Second, "descriptors return", func() error {
			if now := descriptors(t, gateway); now > before+50 {
				return fmt.Errorf("%d are open, %d were", now, before)
			}
			return nil
		})
	})
}

// drained returns nil once nothing waits in the kernel for whoever is bound to a UDP address (man 5
// proc, net/udp).
func drained(address string) error {
	bound, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return err
	}
	ip := bound.Addr().As4()
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], bound.Port())
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[1] != local {
			continue
		}
		if !strings.HasSuffix(fields[4], ":00000000") {
			return fmt.Errorf("%s waits at %s", fields[4], address)
		}
		return nil
	}
	return fmt.Errorf("nobody is bound to %s", address)
}

func TestStrangersAtTheGossipPort(t *testing.T) {
	d := attack.Start(t, attack.Options{Services: []string{attack.CA, attack.Registry, attack.WANGossip, attack.Gateway}})
	gossip := d.Pid(attack.WANGossip)
	datacenters := get(t, d, "127.0.0.1", "/api/v1/datacenters")
	framework.Eventually(t, time.Minute, "gossip is served", func() error { return datacenters(t.Context()) })
	address := d.Addr(config.PortWANGossip)

	t.Run("streams of 20 MiB", func(t *testing.T) {
		good := attack.GoodTraffic(t, 50*time.Millisecond, datacenters)
		stop := attack.Watch(t, gossip)
		const encrypted, size = 10, 20 << 20 // what memberlist reads before it tries a key
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		done := make(chan struct{})
		const attackers = 100
		for i := range attackers {
			go func() {
				defer func() { done <- struct{}{} }()
				dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 66, byte(i%50+1))}}
				for ctx.Err() == nil {
					conn, err := dialer.DialContext(ctx, "tcp", address)
					if err != nil {
						continue
					}
					stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
					_, _ = conn.Write(binary.BigEndian.AppendUint32([]byte{encrypted}, size))
					_, _ = conn.Write(make([]byte, size-1)) // it is cut off
					stop()
					_ = conn.Close()
				}
			}()
		}
		for range attackers {
			<-done
		}
		seen, served := stop(), good()
		require.LessOrEqual(t, seen.Grown(), int64(100*attack.MiB), "32 streams of 1 MiB, and what their buffers grew by")
		require.LessOrEqual(t, seen.PeakDescriptors, seen.DescriptorsBefore+100)
		require.Zero(t, served.Failed, served.Last)
	})

	t.Run("junk packets", func(t *testing.T) {
		good := attack.GoodTraffic(t, 50*time.Millisecond, datacenters)
		stop := attack.Watch(t, gossip)
		before := strings.Count(string(d.Log(attack.WANGossip)), "\n")
		conn, err := net.Dial("udp", address)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		for range 20_000 {
			_, err := conn.Write(make([]byte, 64))
			require.NoError(t, err)
		}
		framework.Eventually(t, time.Minute, "all that the kernel kept is read", func() error { return drained(address) })
		seen, served := stop(), good()
		require.LessOrEqual(t, strings.Count(string(d.Log(attack.WANGossip)), "\n")-before, 40)
		require.LessOrEqual(t, seen.Grown(), int64(64*attack.MiB))
		require.Zero(t, served.Failed, served.Last)
	})
}

func TestAServiceAtTheProxysOwnAddress(t *testing.T) {
	d := attack.Start(t, attack.Options{Services: []string{attack.CA, attack.Registry, attack.Gateway, attack.WANGossip, attack.FailoverRouter}})
	router := d.Pid(attack.FailoverRouter)
	d.Access().MustCTL(t, "service", "register", "--name", "circle", "--id", "circle-1", "--node", "loop",
		"--address", d.Host, "--port", strconv.Itoa(config.PortProxy))
	stop := attack.Watch(t, router)
	var answer struct{ Error struct{ Reason string } }
	framework.Eventually(t, time.Minute, "the proxy knows the service", func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.Addr(config.PortProxy)+"/x", http.NoBody)
		if err != nil {
			return err
		}
		request.Host = "circle"
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusLoopDetected {
			return fmt.Errorf("answered %s", response.Status)
		}
		return json.NewDecoder(response.Body).Decode(&answer)
	})
	require.Equal(t, "PROXY_LOOP", answer.Error.Reason)
	require.LessOrEqual(t, stop().PeakDescriptors, stop().DescriptorsBefore+50)
}
