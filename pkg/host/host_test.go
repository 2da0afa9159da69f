package host_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/host"
)

func TestHostsAreReadInTheirOneForm(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"IPv4":                     {"192.0.2.1", "192.0.2.1"},
		"IPv6":                     {"2001:db8::1", "2001:db8::1"},
		"IPv6 loopback":            {"::1", "::1"},
		"IPv6 that ends in colons": {"2001:db8:1::", "2001:db8:1::"},
		"IPv6 in full":             {"2001:0DB8:0:0:0:0:0:1", "2001:db8::1"},
		"IPv4 in IPv6":             {"::ffff:192.0.2.1", "192.0.2.1"},
		"name":                     {"db.example.com", "db.example.com"},
		"one label":                {"localhost", "localhost"},
		"rooted name":              {"db.example.com.", "db.example.com."},
		"underscores":              {"my_app_1", "my_app_1"},
		"digits first":             {"3com.example", "3com.example"},
		"digits in the middle":     {"10.0.0.1.example", "10.0.0.1.example"},
		"hexadecimal word":         {"0xcafe.example", "0xcafe.example"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := host.Parse(c.text)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestWhatIsNoHostIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "number too large": "256.256.256.256", "five numbers": "192.168.1.1.1", "three numbers": "192.168.1",
		"leading zero": "010.1.2.3", "one number": "2130706433", "hexadecimal number": "0x7f.0x1", "every address": "0.0.0.0",
		"every IPv6 address": "::", "every address in IPv6": "::ffff:0.0.0.0", "multicast": "224.0.0.1", "IPv6 multicast": "ff02::1",
		"broadcast": "255.255.255.255", "zone": "fe80::1%eth0", "port": "192.0.2.1:80", "name with port": "db:80", "brackets": "[::1]", "colons": "a:b:c",
		"space": "a b", "slash": "a/b", "plus": "192.168.1.400+what", "empty label": "a..b", "hyphen first": "-a", "hyphen last": "a-.b",
		"long label": strings.Repeat("a", 64), "long name": strings.Repeat("a.", 127) + "ab", "not ASCII": "bücher.example", "no UTF-8": "a\xff", "rooted number": "1.2.3.",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := host.Parse(text)
			require.Error(t, err)
		})
	}
}

func TestNodesAreCalledByTheirAddress(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "db.example.com.": "db.example.com",
		"::1":          "0000:0000:0000:0000:0000:0000:0000:0001",
		"2001:db8:1::": "2001:0db8:0001:0000:0000:0000:0000:0000",
	} {
		require.Equal(t, want, host.NodeName(address))
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "::1", "010.1.2.3", "a.b.", "::ffff:0.0.0.0", "fe80::1%x", "0x1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := host.Parse(text)
		if err != nil {
			return
		}
		again, err := host.Parse(got)
		require.NoError(t, err)
		require.Equal(t, got, again, "the one form is its own")
	})
}
