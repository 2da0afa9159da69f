package ca

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"

	"konsul.dev/pkg/backoff"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/ca/internal/issuer"
	"konsul.dev/services/ca/internal/keystore"
	"konsul.dev/services/ca/internal/policy"
)

const (
	retryMin    = time.Second
	retryMax    = time.Minute
	callTimeout = 10 * time.Second
)

// renew keeps the ca's own leaf and, before that, its intermediate from expiring.
func (s *Service) renew(ctx context.Context) error {
	retry := backoff.New(retryMin, retryMax)
	for {
		state, err := s.store.Load()
		if err != nil {
			return err
		}
		intermediate, leaf := policy.RenewAt(state.Intermediate.Certificate), policy.RenewAt(s.source.Material().Chain[0])
		next := leaf
		if intermediate.Before(leaf) {
			next = intermediate
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.deps.Clock.After(next.Sub(s.deps.Clock.Now())):
		}
		if !s.deps.Clock.Now().Before(intermediate) {
			state, err = s.renewIntermediate(ctx, state)
		}
		if err == nil {
			err = s.renewLeaf(state)
		}
		if err == nil {
			retry.Reset()
			continue
		}
		s.deps.Telemetry.Log.Warn("own certificates not renewed; the old ones stay in use", obs.KeyError, err)
		if retry.Wait(ctx) != nil {
			return nil
		}
	}
}

func (s *Service) renewLeaf(state *keystore.State) error {
	material, err := s.issueOwn(s.handlers, state)
	if err != nil {
		return err
	}
	return s.source.Set(material)
}

// renewIntermediate gets a new intermediate, from the own root or the primary's, and keeps it before it is used.
func (s *Service) renewIntermediate(ctx context.Context, state *keystore.State) (*keystore.State, error) {
	next := *state
	var err error
	if state.Root != nil {
		next.Intermediate, err = s.newIntermediate(state)
	} else {
		next.Intermediate, err = s.askIntermediate(ctx, state)
	}
	if err != nil {
		return state, err
	}
	if err := s.store.Save(&next); err != nil {
		return state, err
	}
	s.handlers.Replace(&next)
	s.deps.Telemetry.Log.Info("intermediate renewed", "expires", next.Intermediate.Certificate.NotAfter)
	return &next, nil
}

func (s *Service) askIntermediate(ctx context.Context, state *keystore.State) (*issuer.Authority, error) {
	conn, err := rpc.DialDatacenter(s.cfg.Endpoints.Gateway, state.PrimaryDatacenter, Name, rpc.ClientParams{Identity: s.source, Telemetry: s.deps.Telemetry})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	key, err := issuer.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := cav1.NewCertificateServiceClient(conn).RenewIntermediate(ctx, &cav1.RenewIntermediateRequest{Csr: csr})
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(resp.GetIntermediate())
	if err != nil {
		return nil, fmt.Errorf("parse intermediate: %w", err)
	}
	return &issuer.Authority{Certificate: cert, Key: key}, nil
}

// publishRoots tells the registry the federation's trust anchors, once, as soon as it can. The primary's
// registry passes them on by replication.
func (s *Service) publishRoots(ctx context.Context) error {
	state, err := s.store.Load()
	if err != nil || state.Root == nil {
		return err
	}
	request := &registryv1.PublishRootsRequest{RequestId: uuid.NewString()}
	for _, root := range state.Roots {
		digest := sha256.Sum256(root.Raw)
		request.Roots = append(request.Roots, &registryv1.CARoot{Fingerprint: hex.EncodeToString(digest[:]), Certificate: root.Raw, Active: true})
	}
	for retry := backoff.New(retryMin, retryMax); ; {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := registryv1.NewTrustServiceClient(s.registry).PublishRoots(callCtx, request)
		cancel()
		if err == nil {
			return nil
		}
		s.deps.Telemetry.Log.Debug("registry did not take the roots yet", obs.KeyError, err)
		if retry.Wait(ctx) != nil {
			return nil
		}
	}
}
