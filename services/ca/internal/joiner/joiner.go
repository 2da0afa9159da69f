// Package joiner brings a new datacenter into a federation: with a join token it gets the datacenter's
// intermediate from the primary's ca.
package joiner

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
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
	retryMax       = 3 * time.Second
	attemptTimeout = 10 * time.Second
	field          = "ca.join_token_file"
	component      = "ca"
)

// Join gets the state of a new secondary, trying the primary's gateways until timeout. What the
// primary refuses is refused at once.
func Join(ctx context.Context, token jointoken.Token, dc *federationv1.Datacenter, timeout time.Duration) (*keystore.State, error) {
	if token.Datacenter != dc.GetName() {
		return nil, fault.New(fault.FailedPrecondition, "JOIN_TOKEN_FOR_ANOTHER", "the token admits %q, not %q", token.Datacenter, dc.GetName()).
			WithField(field).WithRemedy("make a token for this datacenter, or correct server.datacenter")
	}
	if time.Now().After(token.ExpiresAt) {
		return nil, fault.New(fault.FailedPrecondition, "JOIN_TOKEN_EXPIRED", "the token expired at %s", token.ExpiresAt.Format(time.RFC3339)).
			WithField(field).WithRemedy("make a new one in the primary")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	retry := backoff.New(retryMin, retryMax)
	var last error
	for i := 0; ; i++ {
		state, err := attempt(ctx, token, dc, token.Gateways[i%len(token.Gateways)])
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
				WithField(field).WithRemedy("check that the primary runs and that its gateways can be reached on these addresses, then start again; the token was not used").Wrap(last)
		}
	}
}

// final tells an answer from a failure that may pass.
func final(code fault.Code) bool {
	return slices.Contains([]fault.Code{
		fault.Unauthenticated, fault.PermissionDenied, fault.FailedPrecondition, fault.AlreadyExists, fault.InvalidArgument,
	}, code)
}

func attempt(ctx context.Context, token jointoken.Token, dc *federationv1.Datacenter, gateway string) (*keystore.State, error) {
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
	peer, err := identity.Verify(tlsState.PeerCertificates, []*x509.Certificate{root}, time.Now())
	want := identity.ID{FederationID: token.FederationID, Datacenter: token.PrimaryDatacenter, Kind: identity.KindService, Service: component}
	if err != nil || peer != want {
		return nil, status.Errorf(codes.Unauthenticated, "%s is not the primary's ca that the token pins", gateway)
	}
	exporter, err := identity.Exporter(tlsState)
	if err != nil {
		return nil, err
	}
	key, err := issuer.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	resp, err := cav1.NewEnrollmentServiceClient(conn).Join(ctx, &cav1.JoinRequest{
		TokenId: token.ID, Csr: csr, Datacenter: dc, Proof: ed25519.Sign(token.Key(), identity.JoinMessage(exporter, csr)),
	})
	if err != nil {
		return nil, err
	}
	intermediate, err := x509.ParseCertificate(resp.GetIntermediate())
	if err != nil {
		return nil, fmt.Errorf("parse intermediate: %w", err)
	}
	if !key.PublicKey.Equal(intermediate.PublicKey) {
		return nil, errors.New("the primary signed another key")
	}
	state := &keystore.State{
		FederationID: token.FederationID, PrimaryDatacenter: resp.GetPrimaryDatacenter(),
		Intermediate: &issuer.Authority{Certificate: intermediate, Key: key}, GossipKeys: resp.GetGossipKeys(),
	}
	for _, der := range resp.GetRoots() {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse trust anchor: %w", err)
		}
		state.Roots = append(state.Roots, c)
	}
	return state, intermediate.CheckSignatureFrom(root)
}
