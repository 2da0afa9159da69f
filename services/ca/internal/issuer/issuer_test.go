package issuer_test

import (
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/identity"
	"konsul.dev/services/ca/internal/issuer"
)

const federation = "f"

func authorities(t *testing.T) (root, east, west *issuer.Authority) {
	t.Helper()
	root, err := issuer.NewRoot(federation, time.Now(), time.Hour)
	require.NoError(t, err)
	for dc, a := range map[string]**issuer.Authority{"us-east": &east, "us-west": &west} {
		key, err := issuer.NewKey()
		require.NoError(t, err)
		cert, err := root.SignIntermediate(federation, dc, &key.PublicKey, time.Now(), time.Hour)
		require.NoError(t, err)
		*a = &issuer.Authority{Certificate: cert, Key: key}
	}
	return root, east, west
}

func leaf(t *testing.T, a *issuer.Authority, dc string) *x509.Certificate {
	t.Helper()
	key, err := issuer.NewKey()
	require.NoError(t, err)
	id := identity.ID{FederationID: federation, Datacenter: dc, Kind: identity.KindService, Service: "registry"}
	cert, err := a.SignLeaf(id, &key.PublicKey, []string{"a.example.com"}, []net.IP{net.IPv6loopback}, time.Now(), 24*time.Hour)
	require.NoError(t, err)
	return cert
}

func TestLeavesAreBelievedOnlyFromTheirOwnIntermediate(t *testing.T) {
	root, east, west := authorities(t)
	roots := []*x509.Certificate{root.Certificate}
	verify := func(chain ...*x509.Certificate) error {
		_, err := identity.Verify(chain, roots, time.Now())
		return err
	}
	require.NoError(t, verify(leaf(t, east, "us-east"), east.Certificate))
	require.ErrorContains(t, verify(leaf(t, west, "us-east"), west.Certificate), "own datacenter")
	require.ErrorContains(t, verify(leaf(t, west, "us-east"), west.Certificate, east.Certificate), "own datacenter")
	require.Error(t, verify(leaf(t, root, "us-east"), root.Certificate), "the root signs no leaves")

	// An intermediate cannot make another.
	key, err := issuer.NewKey()
	require.NoError(t, err)
	forged, err := west.SignIntermediate(federation, "us-east", &key.PublicKey, time.Now(), time.Hour)
	require.NoError(t, err)
	below := &issuer.Authority{Certificate: forged, Key: key}
	require.Error(t, verify(leaf(t, below, "us-east"), forged, west.Certificate))
}

func TestALeafEndsWithItsIssuer(t *testing.T) {
	_, east, _ := authorities(t)
	require.Equal(t, east.Certificate.NotAfter, leaf(t, east, "us-east").NotAfter)
}

func TestAnIntermediateIsCheckedBeforeItIsKept(t *testing.T) {
	root, east, west := authorities(t)
	stranger, err := issuer.NewRoot(federation, time.Now(), time.Hour)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		cert  *x509.Certificate
		root  *x509.Certificate
		dc    string
		now   time.Time
		fails string
	}{
		"good":               {east.Certificate, root.Certificate, "us-east", time.Now(), ""},
		"another key":        {west.Certificate, root.Certificate, "us-west", time.Now(), "another key"},
		"another datacenter": {east.Certificate, root.Certificate, "us-west", time.Now(), "does not sign for"},
		"another root":       {east.Certificate, stranger.Certificate, "us-east", time.Now(), "verify intermediate"},
		"expired":            {east.Certificate, root.Certificate, "us-east", time.Now().Add(48 * time.Hour), "verify intermediate"},
		"a leaf":             {leaf(t, east, "us-east"), root.Certificate, "us-east", time.Now(), "another key"},
	} {
		t.Run(name, func(t *testing.T) {
			err := issuer.CheckIntermediate(c.cert, &east.Key.PublicKey, []*x509.Certificate{c.root}, federation, c.dc, c.now)
			if c.fails == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.fails)
		})
	}
}
