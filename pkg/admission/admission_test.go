package admission_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/admission"
)

// client is a connection from an address.
type client struct {
	net.Conn

	from   string
	closed bool
}

func (c *client) RemoteAddr() net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", c.from)
	if err != nil {
		panic(err)
	}
	return addr
}

func (c *client) Close() error {
	c.closed = true
	return nil
}

type door struct {
	*admission.Gate

	refused map[admission.Reason]int
}

func open(limits admission.Limits) *door {
	d := &door{refused: map[admission.Reason]int{}}
	d.Gate = admission.New(limits, func(r admission.Reason) { d.refused[r]++ })
	return d
}

func (d *door) admit(t *testing.T, from string) (*client, *admission.Ticket) {
	t.Helper()
	c := &client{from: from}
	ticket, ok := d.Admit(c)
	require.True(t, ok, "a connection of %s", from)
	return c, ticket
}

func TestEachBoundHolds(t *testing.T) {
	limits := admission.Limits{Connections: 4, PerSource: 3, HalfOpen: 4, HalfOpenPerSource: 3}
	for name, c := range map[string]struct {
		before []string
		next   string
		reason admission.Reason
	}{
		"one address":               {[]string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"}, "192.0.2.1:4", admission.TooManyFromSource},
		"another address":           {[]string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"}, "192.0.2.2:1", ""},
		"one customer of IPv6":      {[]string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1"}, "[2001:db8::4]:1", admission.TooManyFromSource},
		"another customer of IPv6":  {[]string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1"}, "[2001:db8:0:1::1]:1", ""},
		"IPv4 in IPv6 is the same":  {[]string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"}, "[::ffff:192.0.2.1]:4", admission.TooManyFromSource},
		"all addresses together":    {[]string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"}, "192.0.2.5:1", admission.TooMany},
		"link-local, zones aside":   {[]string{"[fe80::1%lo]:1", "[fe80::1]:2", "[fe80::2]:3"}, "[fe80::3]:1", admission.TooManyFromSource},
		"one that has gone is free": {[]string{"192.0.2.1:1", "192.0.2.1:2"}, "192.0.2.1:3", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(limits)
			for _, from := range c.before {
				_, ticket := d.admit(t, from)
				require.True(t, ticket.Established())
			}
			_, ok := d.Admit(&client{from: c.next})
			require.Equal(t, c.reason == "", ok)
			if c.reason != "" {
				require.Equal(t, map[admission.Reason]int{c.reason: 1}, d.refused)
			}
		})
	}
}

func TestSilentOnesMakeRoomForNewOnes(t *testing.T) {
	d := open(admission.Limits{Connections: 100, PerSource: 100, HalfOpen: 4, HalfOpenPerSource: 3})
	first, firstTicket := d.admit(t, "192.0.2.1:1")
	spoke, spokeTicket := d.admit(t, "192.0.2.1:2")
	require.True(t, spokeTicket.Established())
	for range 2 {
		d.admit(t, "192.0.2.1:3")
	}
	require.False(t, first.closed)

	d.admit(t, "192.0.2.1:4")
	require.True(t, first.closed, "the oldest of the source")
	require.True(t, firstTicket.Evicted())
	require.False(t, firstTicket.Established(), "too late")
	require.False(t, spoke.closed, "one that has spoken stays")
	require.Equal(t, 4, d.Open())

	other, _ := d.admit(t, "192.0.2.2:1")
	d.admit(t, "192.0.2.3:1")
	require.False(t, other.closed, "the source with the most half-open ones gives way")
	require.Equal(t, map[admission.Reason]int{admission.TooSilent: 2}, d.refused)
	require.Equal(t, 5, d.Open())
}

func TestSilentOnesMakeRoomWhereAllPlacesAreTaken(t *testing.T) {
	for name, limits := range map[string]admission.Limits{
		"of the source": {Connections: 9, PerSource: 1, HalfOpen: 9, HalfOpenPerSource: 9},
		"of the port":   {Connections: 1, PerSource: 9, HalfOpen: 9, HalfOpenPerSource: 9},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(limits)
			silent, _ := d.admit(t, "192.0.2.1:1")
			_, next := d.admit(t, "192.0.2.1:2")
			require.True(t, silent.closed)
			require.True(t, next.Established())
			_, ok := d.Admit(&client{from: "192.0.2.1:3"})
			require.False(t, ok, "nobody is silent now")
		})
	}
}

func TestPlacesComeBackOnce(t *testing.T) {
	d := open(admission.Limits{Connections: 1, PerSource: 1, HalfOpen: 1, HalfOpenPerSource: 1})
	for range 3 {
		_, ticket := d.admit(t, "192.0.2.1:1")
		require.Equal(t, 1, d.Open())
		require.True(t, ticket.Established())
		ticket.Release()
		ticket.Release()
		require.Zero(t, d.Open())
	}
	require.Empty(t, d.refused)
}

func TestListenerClosesWhatIsRefused(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d := open(admission.Limits{Connections: 1, PerSource: 1, HalfOpen: 1, HalfOpenPerSource: 1})
	listener := d.Listener(inner)
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", inner.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	dial()
	accepted, err := listener.Accept()
	require.NoError(t, err)
	accepted.(*admission.Conn).Established()

	refused := dial()
	closed := make(chan error, 1)
	go func() {
		_, err := listener.Accept()
		closed <- err
	}()
	require.NoError(t, refused.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = refused.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)

	require.NoError(t, accepted.Close())
	require.Error(t, accepted.Close())
	require.Zero(t, d.Open())
	require.NoError(t, listener.Close())
	require.ErrorIs(t, <-closed, net.ErrClosed)
}
