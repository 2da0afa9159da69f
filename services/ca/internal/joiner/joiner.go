// Package joiner brings a new datacenter into a federation: with a join token it gets the
// datacenter's intermediate from the primary's ca.
package joiner

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	"konsul.dev/services/ca/internal/issuer"
	"konsul.dev/services/ca/internal/jointoken"
	"konsul.dev/services/ca/internal/keystore"
)

const (
	retryMin       = 200 * time.Millisecond
	retryMax       = 2 * time.Second
	attemptTimeout = 10 * time.Second
	field          = "ca.join_token_file"
	component      = "ca"
)

// ReasonClocks says that a certificate is not valid now by this host's clock.
const ReasonClocks = "CERTIFICATE_OUT_OF_TIME"

// Applicant is who wants to join.
type Applicant struct {
	Datacenter *federationv1.Datacenter
	// Key is what the intermediate is to be for. Whoever comes again with it, after an answer was
	// lost, gets another.
	Key *ecdsa.PrivateKey
	// Now is this host's clock.
	Now func() time.Time
}

// Join gets the state of a new secondary, trying the primary's gateways until timeout. What the
// primary refuses is refused at once.
func Join(ctx context.Context, token jointoken.Token, a Applicant, timeout time.Duration) (*keystore.State, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	retry := backoff.New(retryMin, retryMax)
	var last error
	for i := 0; ; i++ {
		state, err := attempt(ctx, token, a, token.Gateways[i%len(token.Gateways)])
		if err == nil {
			return state, nil
		}
		if f, ok := fault.As(rpc.FromStatus(err)); ok && final(f.Code()) {
			return nil, f.WithField(field)
		}
		last = err
		if retry.Wait(ctx) != nil {
			return nil, fault.New(fault.Unavailable, "PRIMARY_UNREACHABLE", "the primary %s was not reached at %v within %s: %v",
				token.PrimaryDatacenter, token.Gateways, timeout, last).
				WithField(field).WithRemedy("check that the primary runs and that its gateways can be reached on these addresses, then start again: the token still works").Wrap(last)
		}
	}
}

// final tells an answer from a failure that may pass.
func final(code fault.Code) bool {
	return slices.Contains([]fault.Code{
		fault.Unauthenticated, fault.PermissionDenied, fault.FailedPrecondition, fault.AlreadyExists, fault.InvalidArgument,
	}, code)
}

func attempt(ctx context.Context, token jointoken.Token, a Applicant, gateway string) (*keystore.State, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	sni := identity.ControlSNI(component, token.PrimaryDatacenter, identity.TrustDomain(token.FederationID))
	conn, tlsState, err := identity.DialUnverified(ctx, gateway, sni)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	root, err := token.RootCertificate()
	if err != nil {
		return nil, err
	}
	peer, err := identity.Verify(tlsState.PeerCertificates, []*x509.Certificate{root}, a.Now())
	var invalid *identity.ValidityError
	if errors.As(err, &invalid) {
		return nil, fault.New(fault.FailedPrecondition, ReasonClocks, "%s answers with a certificate that this host's clock refuses: %s", gateway, invalid).
			WithRemedy("synchronise the clocks of both datacenters (NTP), then start again: the token still works").Wrap(err)
	}
	want := identity.ID{FederationID: token.FederationID, Datacenter: token.PrimaryDatacenter, Kind: identity.KindService, Service: component}
	if err != nil || peer != want {
		return nil, status.Errorf(codes.Unauthenticated, "%s is not the primary's ca that the token pins", gateway)
	}
	exporter, err := identity.Exporter(tlsState)
	if err != nil {
		return nil, err
	}
	csr, err := issuer.Request(a.Key)
	if err != nil {
		return nil, err
	}
	resp, err := cav1.NewEnrollmentServiceClient(conn).Join(ctx, &cav1.JoinRequest{
		TokenId: token.ID, Csr: csr, Datacenter: a.Datacenter, Proof: ed25519.Sign(token.Key(), identity.JoinMessage(exporter, csr)),
	})
	if err != nil {
		return nil, err
	}
	return accept(token, a, root, resp)
}

// accept returns the state an answer makes. Nothing is kept of one that would not work.
func accept(token jointoken.Token, a Applicant, pinned *x509.Certificate, resp *cav1.JoinResponse) (*keystore.State, error) {
	certs, err := issuer.ParseCertificates(append([][]byte{resp.GetIntermediate()}, resp.GetRoots()...))
	if err != nil {
		return nil, err
	}
	intermediate, roots := certs[0], certs[1:]
	if !slices.ContainsFunc(roots, pinned.Equal) || len(resp.GetGossipKeys()) == 0 {
		return nil, errors.New("the primary's answer is incomplete")
	}
	if err := issuer.CheckIntermediate(intermediate, &a.Key.PublicKey, roots, token.FederationID, token.Datacenter, a.Now()); err != nil {
		return nil, err
	}
	return &keystore.State{
		FederationID: token.FederationID, PrimaryDatacenter: token.PrimaryDatacenter,
		Intermediate: &issuer.Authority{Certificate: intermediate, Key: a.Key}, Roots: roots, GossipKeys: resp.GetGossipKeys(),
	}, nil
}
