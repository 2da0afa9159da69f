package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
)

const (
	retryMin = 100 * time.Millisecond
	retryMax = 2 * time.Second
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
	// Node is the node whose agent the service is; empty for every other service.
	Node string
	// SecretFile holds the component's key, or the datacenter secret, from which it is derived.
	SecretFile string
	// Dir keeps the identity over restarts; created if missing.
	Dir string
	// DNSNames and IPs are asked for besides the SPIFFE id; the ca grants them to the gateway only.
	DNSNames []string
	IPs      []net.IP
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Enrolled is an identity that renews itself while Run runs. It goes on serving whatever it has
// when the ca cannot be reached.
type Enrolled struct {
	*Rotating

	cfg EnrollConfig
	// key proves who we are.
	key []byte
	// secret is the datacenter secret, if the file holds it: a ca of an earlier version knows no
	// other key.
	secret []byte
	expiry *prometheus.GaugeVec
}

// Enroll returns the identity kept in Dir if it is still valid, else gets one from the ca, trying
// until ctx ends. It fails at once when the ca refuses: a wrong secret does not become right.
func Enroll(ctx context.Context, cfg EnrollConfig) (*Enrolled, error) {
	e, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	if len(cfg.CAAddrs) == 0 {
		return nil, fault.Invalid("endpoints.ca", "names no ca").WithRemedy("list the datacenter's cas as host:port")
	}
	WarnIfExposed(cfg.Log, cfg.SecretFile)
	e.expiry, err = obs.Register(cfg.Metrics, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "konsul_identity_certificate_expiry_timestamp_seconds",
		Help: "When the certificate in use expires, as seconds since 1970.",
	}, []string{"service"}))
	if err != nil {
		return nil, fmt.Errorf("register identity metrics: %w", err)
	}
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

// prepare reads the key that cfg names.
func prepare(cfg EnrollConfig) (*Enrolled, error) {
	credential, err := ReadCredential(cfg.SecretFile)
	if err != nil {
		return nil, err
	}
	key, err := credential.Key(Holder{Component: cfg.Service, Node: cfg.Node})
	if err != nil {
		return nil, err
	}
	return &Enrolled{cfg: cfg, key: key, secret: credential.secret}, nil
}

// adopt takes material into use if it is what the configuration asks for.
func (e *Enrolled) adopt(m Material) error {
	source, err := NewRotating(m)
	if err != nil {
		return err
	}
	leaf := m.Chain[0]
	id := source.ID()
	// A ca of an earlier version gives agents certificates without a node; Run sees to it.
	if id.Datacenter != e.cfg.Datacenter || id.Service != e.cfg.Service || (id.Node != "" && id.Node != e.cfg.Node) || !e.covers(leaf) {
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
			return Material{}, e.refusal(addr, err)
		}
		last = err
		e.cfg.Log.Debug("ca does not answer yet", obs.KeyAddress, addr, obs.KeyError, err)
		if retry.Wait(ctx) != nil {
			return Material{}, fault.New(fault.Unavailable, "CA_UNREACHABLE", "no ca answered at %v", e.cfg.CAAddrs).
				WithField("endpoints.ca").WithRemedy("start the datacenter's ca, or correct its address").Wrap(last)
		}
	}
}

// refusal names the setting at fault: the ca takes the secret before it looks at anything else.
func (e *Enrolled) refusal(addr string, err error) error {
	f := fault.New(fault.Unauthenticated, "ENROLLMENT_REFUSED", "the ca at %s refuses service %s of datacenter %s: %s",
		addr, e.cfg.Service, e.cfg.Datacenter, status.Convert(err).Message()).Wrap(err)
	if status.Code(err) == codes.Unauthenticated {
		return f.WithField("server.secret_file").
			WithRemedy("give it a key derived from the ca's datacenter secret: `konsulctl secret derive --component " + e.cfg.Service + "`")
	}
	return f.WithField("server.datacenter").WithRemedy("compare server.datacenter and endpoints.ca with the ca's configuration")
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

// reasonSecretMismatch is how a ca of an earlier version, which knows no component keys, refuses a
// proof.
const reasonSecretMismatch = "SECRET_MISMATCH"

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func (e *Enrolled) enrollAt(ctx context.Context, addr string) (Material, error) {
	material, err := e.enrollWith(ctx, addr, e.key)
	if len(e.secret) > 0 && reasonOf(err) == reasonSecretMismatch {
		// A proof tells nothing of what it was made with: whoever pretends to be an old ca gains
		// nothing.
		return e.enrollWith(ctx, addr, e.secret)
	}
	return material, err
}

func (e *Enrolled) enrollWith(ctx context.Context, addr string, proving []byte) (Material, error) {
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
		Service: e.cfg.Service, Node: e.cfg.Node, Datacenter: e.cfg.Datacenter, Csr: csr, Proof: ClientProof(proving, exporter, csr),
	})
	if err != nil {
		return Material{}, err
	}
	// Nothing in the answer is believed before this holds: the connection itself verified nobody.
	if !hmac.Equal(resp.GetProof(), ServerProof(proving, exporter, resp.GetCertificateChain(), resp.GetRoots())) {
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
