package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	"konsul.dev/tests/framework"
)

// TestWithoutACertificateNobodyIsLetIn tries every port of a datacenter as a stranger.
func TestWithoutACertificateNobodyIsLetIn(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{Layout: framework.PerService})
	host := lab.Address(framework.USWest)
	for _, port := range []int{8300, 8443, 8502, 8503, 8512, 8513, 8522, 8523, 8533, 8543, 8552, 8554, 8562, 8563} {
		t.Run(fmt.Sprint(port), func(t *testing.T) { refusesStrangers(t, net.JoinHostPort(host, fmt.Sprint(port))) })
	}
	t.Run("ca", func(t *testing.T) { caRefusesStrangers(t, net.JoinHostPort(host, "8532")) })
	t.Run("edge", func(t *testing.T) { edgeRefusesStrangers(t, lab.Access(framework.USWest)) })
}

// refusesStrangers shakes hands without a certificate. In TLS 1.3 the refusal comes with the first
// read.
func refusesStrangers(t *testing.T, address string) {
	t.Helper()
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 5 * time.Second},
		Config:    &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12},
	}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		var refused *net.OpError
		require.ErrorAs(t, err, &refused)
		require.NotContains(t, err.Error(), "connection refused", "nobody listens there: the test proves nothing")
		require.False(t, refused.Timeout(), "nobody answered: the test proves nothing: %v", err)
		return
	}
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	// A client preface makes a server that would serve us answer with its settings.
	_, _ = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	n, err := conn.Read(make([]byte, 16))
	require.Error(t, err, "%d bytes were served to a stranger", n)
	var timeout net.Error
	require.False(t, asTimeout(err, &timeout), "the connection was left open: %v", err)
}

func asTimeout(err error, target *net.Error) bool {
	n, ok := err.(net.Error) //nolint:errorlint // crypto/tls hands the connection's error out as it is
	if ok {
		*target = n
	}
	return ok && n.Timeout()
}

func caRefusesStrangers(t *testing.T, address string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	certificates := cav1.NewCertificateServiceClient(conn)
	_, err = certificates.GetGossipKey(ctx, &cav1.GetGossipKeyRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	_, err = certificates.CreateJoinToken(ctx, &cav1.CreateJoinTokenRequest{Datacenter: "evil"})
	require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	_, err = cav1.NewEnrollmentServiceClient(conn).Enroll(ctx, &cav1.EnrollRequest{
		Service: "registry", Datacenter: framework.USWest, Csr: []byte("x"), Proof: make([]byte, 32),
	})
	require.Contains(t, []codes.Code{codes.Unauthenticated, codes.InvalidArgument}, status.Code(err), "%v", err)
}

func edgeRefusesStrangers(t *testing.T, access framework.Access) {
	t.Helper()
	for _, header := range []http.Header{{"Authorization": {""}}, {"Authorization": {"Bearer wrong"}}} {
		for _, path := range []string{"/api/v1/kv/x", "/api/v1/catalog/services", "/api/v1/datacenters", "/metrics"} {
			reply := access.REST(t, http.MethodGet, path, nil, header)
			require.Equal(t, http.StatusUnauthorized, reply.Status, "%s: %s", path, reply.Body)
		}
	}
	access.Token = "wrong"
	require.Equal(t, 4, access.CTL(t, "kv", "get", "x").Code)
}
