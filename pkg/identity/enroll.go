package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
)

const (
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
	// attemptTimeout bounds one try with one ca: a paused one must not hold up the next.
	attemptTimeout = 10 * time.Second

	componentCA = "ca"
)

// EnrollConfig says which identity to get, and where.
type EnrollConfig struct {
	// CAAddrs are the datacenter's own cas, host:port.
	CAAddrs    []string
	Datacenter string
	Service    string
	// SecretFile holds the datacenter secret.
	SecretFile string
	// Dir keeps the identity over restarts; created if missing.
	Dir string
	// DNSNames and IPs are asked for besides the SPIFFE id; the ca grants them to the gateway only.
	DNSNames []string
	IPs      []net.IP
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Enrolled is an identity that renews itself while Run runs. It goes on serving whatever it has when
// the ca cannot be reached.
type Enrolled struct {
	*Rotating

	cfg    EnrollConfig
	secret []byte
	expiry *prometheus.GaugeVec
}

// Enroll answers the identity kept in Dir if it is still valid, else gets one from the ca, trying until
// ctx ends. It fails at once when the ca refuses: a wrong secret does not become right.
func Enroll(ctx context.Context, cfg EnrollConfig) (*Enrolled, error) {
	secret, err := ReadSecret(cfg.SecretFile)
	if err != nil {
		return nil, err
	}
	expiry, err := obs.Register(cfg.Metrics, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "konsul_identity_certificate_expiry_timestamp_seconds",
		Help: "When the certificate in use expires, as seconds since 1970.",
	}, []string{"service"}))
	if err != nil {
		return nil, fmt.Errorf("register identity metrics: %w", err)
	}
	e := &Enrolled{cfg: cfg, secret: secret, expiry: expiry}
	material, err := load(cfg.Dir)
	if err == nil {
		err = e.adopt(material)
	}
	if err == nil {
		return e, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		cfg.Log.Info("kept identity is of no use; enrolling anew", obs.KeyError, err)
	}
	if material, err = e.enroll(ctx); err != nil {
		return nil, err
	}
	if err := e.adopt(material); err != nil {
		return nil, err
	}
	return e, save(cfg.Dir, material)
}

// adopt takes material into use if it is what the configuration asks for.
func (e *Enrolled) adopt(m Material) error {
	source, err := NewRotating(m)
	if err != nil {
		return err
	}
	leaf := m.Chain[0]
	id := source.ID()
	if id.Datacenter != e.cfg.Datacenter || id.Service != e.cfg.Service || !e.covers(leaf) {
		return fmt.Errorf("certificate for %s does not match the configuration", id)
	}
	e.Rotating = source
	e.expiry.WithLabelValues(e.cfg.Service).Set(float64(leaf.NotAfter.Unix()))
	return nil
}

func (e *Enrolled) covers(leaf *x509.Certificate) bool {
	for _, name := range e.cfg.DNSNames {
		if !slices.Contains(leaf.DNSNames, name) {
			return false
		}
	}
	for _, ip := range e.cfg.IPs {
		if !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// enroll asks one ca after the other until one answers, one refuses, or ctx ends.
func (e *Enrolled) enroll(ctx context.Context) (Material, error) {
	retry := backoff.New(retryMin, retryMax)
	var last error
	for i := 0; ; i++ {
		addr := e.cfg.CAAddrs[i%len(e.cfg.CAAddrs)]
		material, err := e.enrollAt(ctx, addr)
		switch {
		case err == nil:
			return material, nil
		case refused(err):
			return Material{}, fault.New(fault.Unauthenticated, "ENROLLMENT_REFUSED", "the ca at %s refuses service %s of datacenter %s: %s",
				addr, e.cfg.Service, e.cfg.Datacenter, status.Convert(err).Message()).
				WithField("server.secret_file").WithRemedy("give every service of the datacenter the ca's secret file").Wrap(err)
		}
		last = err
		e.cfg.Log.Debug("ca does not answer yet", obs.KeyAddress, addr, obs.KeyError, err)
		if retry.Wait(ctx) != nil {
			return Material{}, fault.New(fault.Unavailable, "CA_UNREACHABLE", "no ca answered at %v", e.cfg.CAAddrs).
				WithField("endpoints.ca").WithRemedy("start the datacenter's ca, or correct its address").Wrap(last)
		}
	}
}

// refused tells an answer that will not change from a failure that may pass.
func refused(err error) bool {
	if errors.Is(err, errNotTheCA) {
		return true
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument:
		return true
	default:
		return false
	}
}

// errNotTheCA means that whoever answered does not hold the datacenter's secret.
var errNotTheCA = status.Error(codes.Unauthenticated, "the answer does not prove the datacenter's secret")

func (e *Enrolled) enrollAt(ctx context.Context, addr string) (Material, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	conn, state, err := DialUnverified(ctx, addr, "")
	if err != nil {
		return Material{}, err
	}
	defer func() { _ = conn.Close() }()
	exporter, err := Exporter(state)
	if err != nil {
		return Material{}, err
	}
	key, csr, err := e.request()
	if err != nil {
		return Material{}, err
	}
	resp, err := cav1.NewEnrollmentServiceClient(conn).Enroll(ctx, &cav1.EnrollRequest{
		Service: e.cfg.Service, Datacenter: e.cfg.Datacenter, Csr: csr, Proof: ClientProof(e.secret, exporter, csr),
	})
	if err != nil {
		return Material{}, err
	}
	// Nothing in the answer is believed before this holds: the connection itself verified nobody.
	if !hmac.Equal(resp.GetProof(), ServerProof(e.secret, exporter, resp.GetCertificateChain(), resp.GetRoots())) {
		return Material{}, errNotTheCA
	}
	return parseMaterial(key, resp.GetCertificateChain(), resp.GetRoots())
}

// request makes a fresh key and the CSR for it.
func (e *Enrolled) request() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: e.cfg.DNSNames, IPAddresses: e.cfg.IPs}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	return key, csr, nil
}

// DialUnverified opens TLS to addr without believing who answers, and answers a gRPC connection over
// exactly that TLS connection with its state. The caller proves and checks by channel binding.
func DialUnverified(ctx context.Context, addr, serverName string) (*grpc.ClientConn, tls.ConnectionState, error) {
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ServerName: serverName,
		InsecureSkipVerify: true,
	}}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, tls.ConnectionState{}, fmt.Errorf("dial %s: %w", addr, err)
	}
	secured, ok := raw.(*tls.Conn)
	if !ok {
		return nil, tls.ConnectionState{}, fmt.Errorf("dial %s: no TLS connection", addr)
	}
	once := make(chan net.Conn, 1)
	once <- secured
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection that was proven is gone")
			}
		}))
	if err != nil {
		return nil, tls.ConnectionState{}, errors.Join(fmt.Errorf("make client: %w", err), secured.Close())
	}
	return conn, secured.ConnectionState(), nil
}

func parseMaterial(key *ecdsa.PrivateKey, chain, roots [][]byte) (Material, error) {
	m := Material{Key: key}
	for _, list := range []struct {
		der   [][]byte
		certs *[]*x509.Certificate
	}{{chain, &m.Chain}, {roots, &m.Roots}} {
		for _, der := range list.der {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return Material{}, fmt.Errorf("parse certificate: %w", err)
			}
			*list.certs = append(*list.certs, cert)
		}
	}
	if len(m.Chain) == 0 {
		return Material{}, errors.New("the ca answered without a certificate")
	}
	return m, nil
}

// Run renews the certificate at two thirds of its life, for as long as ctx lasts. It never fails:
// a ca that is away is asked again, and an expired certificate is replaced by enrolling anew.
func (e *Enrolled) Run(ctx context.Context) error {
	retry := backoff.New(time.Second, time.Minute)
	for {
		leaf := e.Material().Chain[0]
		renewAt := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
		timer := time.NewTimer(max(0, time.Until(renewAt)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if err := e.renew(ctx); err != nil {
			e.cfg.Log.Warn("certificate not renewed; the old one stays in use", obs.KeyError, err, "expires", leaf.NotAfter)
			if retry.Wait(ctx) != nil {
				return nil
			}
			continue
		}
		retry.Reset()
	}
}

func (e *Enrolled) renew(ctx context.Context) error {
	material, err := e.renewed(ctx)
	if err != nil {
		if time.Now().Before(e.Material().Chain[0].NotAfter) {
			return err
		}
		// With an expired certificate no ca takes the call; the secret still proves who we are.
		enrollCtx, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		if material, err = e.enroll(enrollCtx); err != nil {
			return err
		}
	}
	if err := e.Set(material); err != nil {
		return err
	}
	e.expiry.WithLabelValues(e.cfg.Service).Set(float64(material.Chain[0].NotAfter.Unix()))
	e.cfg.Log.Info("certificate renewed", "expires", material.Chain[0].NotAfter)
	return save(e.cfg.Dir, material)
}

func (e *Enrolled) renewed(ctx context.Context) (Material, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	key, csr, err := e.request()
	if err != nil {
		return Material{}, err
	}
	var errs []error
	for _, addr := range e.cfg.CAAddrs {
		resp, err := e.askRenewal(ctx, addr, csr)
		if err == nil {
			return parseMaterial(key, resp.GetCertificateChain(), resp.GetRoots())
		}
		errs = append(errs, err)
	}
	return Material{}, errors.Join(errs...)
}

func (e *Enrolled) askRenewal(ctx context.Context, addr string, csr []byte) (*cav1.RenewResponse, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(credentials.NewTLS(e.ClientTLS(Want{Service: componentCA}, ""))))
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	defer func() { _ = conn.Close() }()
	return cav1.NewCertificateServiceClient(conn).Renew(ctx, &cav1.RenewRequest{Csr: csr})
}
