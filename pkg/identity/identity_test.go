package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
)

func TestIDsAndServerNamesSurviveTheirText(t *testing.T) {
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		id := identity.ID{
			FederationID: name.Draw(t, "federation"), Datacenter: name.Draw(t, "dc"), Service: name.Draw(t, "service"),
			Kind: rapid.SampledFrom([]string{identity.KindService, identity.KindWorkload}).Draw(t, "kind"),
		}
		if id.Kind == identity.KindService && rapid.Bool().Draw(t, "an agent") {
			id.Service, id.Node = "agent", name.Draw(t, "node")
		}
		parsed, err := identity.ParseID(id.String())
		require.NoError(t, err)
		require.Equal(t, id, parsed)

		td := identity.TrustDomain(id.FederationID)
		sni, err := identity.ParseSNI(identity.ControlSNI(id.Service, id.Datacenter, td))
		require.NoError(t, err)
		require.Equal(t, identity.SNI{Service: id.Service, Datacenter: id.Datacenter, TrustDomain: td, Control: true}, sni)
		sni, err = identity.ParseSNI(identity.WorkloadSNI(id.Service, id.Datacenter, td))
		require.NoError(t, err)
		require.Equal(t, identity.SNI{Service: id.Service, Datacenter: id.Datacenter, TrustDomain: td}, sni)
	})
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://f.konsul/dc/us-east/svc/registry")
	f.Add("spiffe://f.konsul/dc/us-east/svc/agent/web-1")
	f.Add("registry.control.us-east.f.konsul")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := identity.ParseID(text); err == nil {
			require.Equal(t, text, id.String())
		}
		_, _ = identity.ParseSNI(text)
	})
}

// shake runs a handshake and answers each side's outcome.
func shake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	require.NoError(t, a.SetDeadline(time.Now().Add(5*time.Second)))
	require.NoError(t, b.SetDeadline(time.Now().Add(5*time.Second)))
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(a, server)
		_, err := conn.Write([]byte("x"))
		_ = a.Close()
		done <- err
	}()
	conn := tls.Client(b, client)
	_, clientErr = conn.Read(make([]byte, 1))
	_ = b.Close()
	return <-done, clientErr
}

func TestHandshakesBelieveOnlyWhomTheyShould(t *testing.T) {
	federation := identitytest.NewCA(t, identitytest.FederationID)
	stranger := identitytest.NewCA(t, identitytest.FederationID)
	server := federation.Source("us-east", "registry")
	want := identity.Want{Datacenter: "us-east", Service: "registry"}
	for name, c := range map[string]struct {
		server identity.ServerOptions
		client *tls.Config
		ok     bool
	}{
		"own federation":     {identity.ServerOptions{}, federation.Source("us-west", "replicator").ClientTLS(want, "x"), true},
		"other roots":        {identity.ServerOptions{}, stranger.Source("us-west", "replicator").ClientTLS(identity.Want{Any: true}, "x"), false},
		"wrong service":      {identity.ServerOptions{}, federation.Source("us-west", "replicator").ClientTLS(identity.Want{Datacenter: "us-east", Service: "ca"}, "x"), false},
		"wrong datacenter":   {identity.ServerOptions{}, federation.Source("us-west", "replicator").ClientTLS(identity.Want{Service: "registry"}, "x"), false},
		"no certificate":     {identity.ServerOptions{}, &tls.Config{InsecureSkipVerify: true}, false},
		"none, but optional": {identity.ServerOptions{ClientCert: identity.VerifyIfGiven}, &tls.Config{InsecureSkipVerify: true}, true},
		"refused by accept": {
			identity.ServerOptions{Accept: func(identity.ID) error { return errors.New("not you") }},
			federation.Source("us-west", "replicator").ClientTLS(want, "x"), false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			serverErr, clientErr := shake(t, server.ServerTLS(c.server), c.client)
			if c.ok {
				require.NoError(t, serverErr)
				require.NoError(t, clientErr)
				return
			}
			require.Error(t, errors.Join(serverErr, clientErr))
		})
	}
}

func TestAnIntermediateSpeaksOnlyForItsOwnDatacenter(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	id := identity.ID{FederationID: identitytest.FederationID, Datacenter: "us-east", Kind: identity.KindService, Service: "registry"}
	_, err := identity.NewRotating(ca.Material(id, "us-west"))
	require.ErrorContains(t, err, "own datacenter")
}

func TestACertificateThatIsNotValidNowNamesBothClocks(t *testing.T) {
	ca, stranger := identitytest.NewCA(t, identitytest.FederationID), identitytest.NewCA(t, identitytest.FederationID)
	id := identity.ID{FederationID: identitytest.FederationID, Datacenter: "us-east", Kind: identity.KindService, Service: "ca"}
	m := ca.Material(id, "us-east")
	leaf := m.Chain[0]
	for name, c := range map[string]struct {
		roots []*x509.Certificate
		now   time.Time
		want  string
	}{
		"a clock that is behind": {m.Roots, leaf.NotBefore.Add(-90 * time.Second), "is not valid yet"},
		"expired":                {m.Roots, leaf.NotAfter.Add(90 * time.Second), "has expired"},
		"a stranger's, as well":  {[]*x509.Certificate{stranger.Root()}, leaf.NotAfter.Add(90 * time.Second), "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := identity.Verify(m.Chain, c.roots, c.now)
			require.ErrorContains(t, err, c.want)
			var invalid *identity.ValidityError
			require.Equal(t, c.want != "unknown authority", errors.As(err, &invalid))
			if invalid != nil {
				require.Contains(t, err.Error(), "this host's clock says "+c.now.UTC().Format(time.RFC3339))
				require.Contains(t, err.Error(), "compare the clocks")
			}
		})
	}
}

func TestRotationNeedsNoRestart(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	source, client := ca.Source("us-east", "registry"), ca.Source("us-east", "gateway")
	server := source.ServerTLS(identity.ServerOptions{})
	seen := make(map[string]bool)
	cfg := client.ClientTLS(identity.Want{Service: "registry"}, "x")
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		seen[state.PeerCertificates[0].SerialNumber.String()] = true
		return verify(state)
	}
	for range 2 {
		_, err := shake(t, server, cfg)
		require.NoError(t, err)
		require.NoError(t, source.Set(ca.Material(source.ID(), "us-east")))
	}
	require.Len(t, seen, 2)
	require.Error(t, source.Set(ca.Material(client.ID(), "us-east")), "another identity is refused")
}
