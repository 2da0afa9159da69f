package joiner_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/services/ca/internal/joiner"
	"konsul.dev/services/ca/internal/jointoken"
)

// primary stands for the primary's gateway with the ca behind it, as far as the handshake.
func primary(t *testing.T, source identity.Source) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", source.ServerTLS(identity.ServerOptions{ClientCert: identity.NoClientCert, NextProtos: []string{"h2"}}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 1))
				_ = conn.Close()
			}(conn)
		}
	}()
	return listener.Addr().String()
}

func TestARefusalNamesTheClocksOrTheCA(t *testing.T) {
	ca, stranger := identitytest.NewCA(t, identitytest.FederationID), identitytest.NewCA(t, identitytest.FederationID)
	source := ca.Source("us-east", "ca")
	gateway := primary(t, source)
	leaf := source.Material().Chain[0]
	for name, c := range map[string]struct {
		root   *x509.Certificate
		now    time.Time
		reason string
		says   string
	}{
		"this clock is 90 s behind":       {ca.Root(), leaf.NotBefore.Add(-90 * time.Second), joiner.ReasonClocks, "is not valid yet"},
		"this clock is ahead":             {ca.Root(), leaf.NotAfter.Add(90 * time.Second), joiner.ReasonClocks, "has expired"},
		"somebody else is at the address": {stranger.Root(), time.Now(), "", "is not the primary's ca"},
	} {
		t.Run(name, func(t *testing.T) {
			token := jointoken.Token{
				FederationID: identitytest.FederationID, PrimaryDatacenter: "us-east", Datacenter: "us-west",
				Gateways: []string{gateway}, Root: c.root.Raw, Seed: make([]byte, 32),
			}
			_, err := joiner.Join(t.Context(), token, joiner.Applicant{Now: func() time.Time { return c.now }}, 30*time.Second)
			f, ok := fault.As(err)
			require.True(t, ok, "%v", err)
			require.Equal(t, c.reason, f.Reason())
			require.Contains(t, f.Message(), c.says)
			require.Equal(t, "ca.join_token_file", f.Field())
			if c.reason != "" {
				require.Contains(t, f.Remedy(), "NTP")
			}
		})
	}
}
