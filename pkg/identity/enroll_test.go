package identity_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/identity/identitytest"
	"konsul.dev/pkg/obs"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
)

// authority is a ca that signs whatever a federation in memory signs, for one secret.
type authority struct {
	cav1.UnimplementedEnrollmentServiceServer
	cav1.UnimplementedCertificateServiceServer

	secret []byte
	// old makes it a ca of an earlier version, which takes the datacenter secret itself for proof.
	old     bool
	sign    func(key *ecdsa.PublicKey) *x509.Certificate
	issuer  *x509.Certificate
	root    *x509.Certificate
	refusal error
}

func (a *authority) answer(der []byte) (chain, roots [][]byte, err error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, nil, err
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, nil, status.Error(codes.InvalidArgument, "no ECDSA key")
	}
	return [][]byte{a.sign(key).Raw, a.issuer.Raw}, [][]byte{a.root.Raw}, nil
}

func (a *authority) Enroll(ctx context.Context, req *cav1.EnrollRequest) (*cav1.EnrollResponse, error) {
	if a.refusal != nil {
		return nil, a.refusal
	}
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no TLS")
	}
	exporter, err := identity.Exporter(info.State)
	if err != nil {
		return nil, err
	}
	key, err := identity.DeriveKey(a.secret, identity.Holder{Component: req.GetService(), Node: req.GetNode()})
	if err != nil {
		return nil, err
	}
	if a.old {
		key = a.secret
	}
	if !bytes.Equal(req.GetProof(), identity.ClientProof(key, exporter, req.GetCsr())) && a.old {
		refusal, err := status.New(codes.Unauthenticated, "the proof does not hold").
			WithDetails(&errdetails.ErrorInfo{Reason: "SECRET_MISMATCH", Domain: "konsul.dev"})
		if err != nil {
			return nil, err
		}
		return nil, refusal.Err()
	}
	chain, roots, err := a.answer(req.GetCsr())
	return &cav1.EnrollResponse{
		CertificateChain: chain, Roots: roots, Proof: identity.ServerProof(key, exporter, chain, roots),
	}, err
}

func (a *authority) Renew(_ context.Context, req *cav1.RenewRequest) (*cav1.RenewResponse, error) {
	chain, roots, err := a.answer(req.GetCsr())
	return &cav1.RenewResponse{CertificateChain: chain, Roots: roots}, err
}

// world is a datacenter with a secret, and a place where its ca may be.
type world struct {
	t      *testing.T
	ca     *identitytest.CA
	addr   string
	cfg    identity.EnrollConfig
	secret []byte
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	w := &world{t: t, ca: identitytest.NewCA(t, identitytest.FederationID), addr: listener.Addr().String()}
	w.cfg = identity.EnrollConfig{
		CAAddrs: []string{w.addr}, Datacenter: "us-east", Service: "registry",
		SecretFile: filepath.Join(dir, "secret"), Dir: filepath.Join(dir, "identity"),
		Log: obs.Discard().Log, Metrics: prometheus.NewRegistry(),
	}
	require.NoError(t, os.WriteFile(w.cfg.SecretFile, []byte(identity.NewSecret()), 0o600))
	w.secret, err = identity.ReadSecret(w.cfg.SecretFile, "registry")
	require.NoError(t, err)
	return w
}

func (w *world) id() identity.ID {
	return identity.ID{
		FederationID: identitytest.FederationID, Datacenter: "us-east", Kind: identity.KindService, Service: w.cfg.Service, Node: w.cfg.Node,
	}
}

// serve starts a ca whose leaves live for ttl; it ends with the test.
func (w *world) serve(ttl time.Duration) *authority {
	w.t.Helper()
	a := &authority{
		secret: w.secret, root: w.ca.Root(), issuer: w.ca.Issuer("us-east"),
		sign: func(key *ecdsa.PublicKey) *x509.Certificate {
			return w.ca.Sign(w.id(), "us-east", key, time.Now(), time.Now().Add(ttl))
		},
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(w.ca.Source("us-east", "ca").ServerTLS(
		identity.ServerOptions{ClientCert: identity.VerifyIfGiven, NextProtos: []string{"h2"}}))))
	cav1.RegisterEnrollmentServiceServer(server, a)
	cav1.RegisterCertificateServiceServer(server, a)
	listener, err := net.Listen("tcp", w.addr)
	require.NoError(w.t, err)
	go func() { _ = server.Serve(listener) }()
	w.t.Cleanup(server.Stop)
	return a
}

func (w *world) enroll() (*identity.Enrolled, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	return identity.Enroll(ctx, w.cfg)
}

// run keeps an identity fresh until the test ends.
func (w *world) run(e *identity.Enrolled) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, <-done)
	})
}

func serial(e *identity.Enrolled) string { return e.Material().Chain[0].SerialNumber.String() }

func TestEnrollWaitsForItsCA(t *testing.T) {
	w := newWorld(t)
	done := make(chan error, 1)
	go func() {
		_, err := w.enroll()
		done <- err
	}()
	w.serve(time.Hour)
	require.NoError(t, <-done)
	info, err := os.Stat(filepath.Join(w.cfg.Dir, "identity.pem"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestEnrollGivesUpWithItsContext(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := identity.Enroll(ctx, w.cfg)
	require.Equal(t, "CA_UNREACHABLE", fault.ReasonOf(err))
	require.ErrorContains(t, err, "endpoints.ca")

	w.cfg.CAAddrs = nil
	_, err = w.enroll()
	require.ErrorContains(t, err, "endpoints.ca")
}

func TestACAThatCannotProveTheSecretIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	w.serve(time.Hour).secret = make([]byte, 32)
	start := time.Now()
	_, err := w.enroll()
	require.Equal(t, "ENROLLMENT_REFUSED", fault.ReasonOf(err))
	require.ErrorContains(t, err, "server.secret_file")
	require.Less(t, time.Since(start), 4*time.Second, "at once, not when the context ends")
	require.NoDirExists(t, w.cfg.Dir)
}

func TestARefusalNamesTheSettingAtFault(t *testing.T) {
	for code, field := range map[codes.Code]string{
		codes.Unauthenticated: "server.secret_file", codes.InvalidArgument: "server.datacenter",
	} {
		t.Run(code.String(), func(t *testing.T) {
			w := newWorld(t)
			w.serve(time.Hour).refusal = status.Error(code, "no")
			_, err := w.enroll()
			f, ok := fault.As(err)
			require.True(t, ok)
			require.Equal(t, field, f.Field())
			require.NotEmpty(t, f.Remedy())
		})
	}
}

func TestAKeptIdentityIsUsedOnlyIfItStillHolds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, w *world)
		kept   bool
	}{
		"unchanged":       {func(*testing.T, *world) {}, true},
		"another service": {func(_ *testing.T, w *world) { w.cfg.Service = "agent" }, false},
		"damaged": {func(t *testing.T, w *world) {
			require.NoError(t, os.WriteFile(filepath.Join(w.cfg.Dir, "identity.pem"), []byte("rubbish"), 0o600))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.serve(time.Hour)
			first, err := w.enroll()
			require.NoError(t, err)
			c.change(t, w)
			second, err := w.enroll()
			require.NoError(t, err)
			require.Equal(t, c.kept, serial(first) == serial(second))
		})
	}
}

func TestRunRenewsWithTheOldCertificate(t *testing.T) {
	w := newWorld(t)
	a := w.serve(2 * time.Second)
	e, err := w.enroll()
	require.NoError(t, err)
	first := serial(e)
	// Only a renewal can succeed now.
	a.refusal = status.Error(codes.Unauthenticated, "no")
	a.sign = func(key *ecdsa.PublicKey) *x509.Certificate {
		return w.ca.Sign(w.id(), "us-east", key, time.Now(), time.Now().Add(time.Hour))
	}
	w.run(e)
	require.Eventually(t, func() bool { return serial(e) != first }, 10*time.Second, 10*time.Millisecond)
	// It is in use a moment before it is on disk.
	require.Eventually(t, func() bool {
		again, err := w.enroll()
		return err == nil && serial(again) == serial(e)
	}, 5*time.Second, 20*time.Millisecond, "what was renewed is kept")
}

func TestRunOutlivesItsCAAndAnExpiredCertificate(t *testing.T) {
	w := newWorld(t)
	// The ca of the first enrollment is gone before the certificate ends.
	key := w.ca.Material(w.id(), "us-east").Key
	public, ok := key.Public().(*ecdsa.PublicKey)
	require.True(t, ok)
	ends := time.Now().Add(time.Second)
	leaf := w.ca.Sign(w.id(), "us-east", public, time.Now().Add(-time.Minute), ends)
	require.NoError(t, identity.Save(w.cfg.Dir, identity.Material{
		Chain: []*x509.Certificate{leaf, w.ca.Issuer("us-east")}, Key: key, Roots: []*x509.Certificate{w.ca.Root()},
	}))
	e, err := w.enroll()
	require.NoError(t, err)
	w.run(e)
	require.Eventually(t, func() bool { return time.Now().After(ends) }, 3*time.Second, 10*time.Millisecond)
	w.serve(time.Hour)
	require.Eventually(t, func() bool { return e.Material().Chain[0].NotAfter.After(ends) }, 20*time.Second, 20*time.Millisecond)
	require.Equal(t, w.id(), e.ID())
}

func TestACertificateThatIsDueAtBirthIsNotRenewedInALoop(t *testing.T) {
	w := newWorld(t)
	a := w.serve(time.Hour)
	signed := make(chan struct{}, 1024)
	a.sign = func(key *ecdsa.PublicKey) *x509.Certificate {
		signed <- struct{}{}
		return w.ca.Sign(w.id(), "us-east", key, time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	}
	e, err := w.enroll()
	require.NoError(t, err)
	w.run(e)
	require.Never(t, func() bool { return len(signed) > 4 }, time.Second, 5*time.Millisecond)
}

func TestOpenConnectionsSurviveRotation(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	server, client := ca.Source("us-east", "registry"), ca.Source("us-east", "gateway")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server.ServerTLS(identity.ServerOptions{}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buf := make([]byte, 1)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					if _, err := conn.Write(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
	cfg := client.ClientTLS(identity.Want{Service: "registry"}, "x")
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	dial := func() *tls.Conn {
		conn, err := tls.Dial("tcp", listener.Addr().String(), cfg)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	echo := func(conn *tls.Conn) {
		_, err := conn.Write([]byte("x"))
		require.NoError(t, err)
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	open := dial()
	echo(open)
	old := open.ConnectionState().PeerCertificates[0].SerialNumber
	require.NoError(t, server.Set(ca.Material(server.ID(), "us-east")))
	require.NoError(t, client.Set(ca.Material(client.ID(), "us-east")))
	echo(open)
	fresh := dial()
	echo(fresh)
	require.False(t, fresh.ConnectionState().DidResume, "a session is never resumed past the checks")
	require.NotEqual(t, old, fresh.ConnectionState().PeerCertificates[0].SerialNumber)
}

func TestACertificateForAnotherKeyIsRefused(t *testing.T) {
	ca := identitytest.NewCA(t, identitytest.FederationID)
	source := ca.Source("us-east", "registry")
	m := ca.Material(source.ID(), "us-east")
	m.Key = ca.Material(source.ID(), "us-east").Key
	require.ErrorContains(t, source.Set(m), "another key")
}
