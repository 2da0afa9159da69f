package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
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
	retryMin = time.Second
	retryMax = time.Minute
	// publishMax is for a registry that is not there yet: others wait for the roots.
	publishMax  = 2 * time.Second
	callTimeout = 10 * time.Second
)

// renew keeps the ca's own leaf and its intermediate from expiring. A primary that is away holds up
// the intermediate only: the leaf is signed here, and without it nobody in this datacenter could
// renew.
func (s *Service) renew(ctx context.Context, state *keystore.State) error {
	retry := backoff.New(retryMin, retryMax)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.process.Clock.After(s.nextRenewal(state).Sub(s.process.Clock.Now())):
		}
		state = s.renewDue(ctx, state)
		// What failed is still due, and what is cut short by its issuer's end is due at birth.
		if s.process.Clock.Now().Before(s.nextRenewal(state)) {
			retry.Reset()
			continue
		}
		if retry.Wait(ctx) != nil {
			return nil
		}
	}
}

func (s *Service) nextRenewal(state *keystore.State) time.Time {
	leaf, intermediate := policy.RenewAt(s.source.Material().Chain[0]), policy.RenewAt(state.Intermediate.Certificate)
	if intermediate.Before(leaf) {
		return intermediate
	}
	return leaf
}

func (s *Service) renewDue(ctx context.Context, state *keystore.State) *keystore.State {
	log := s.process.Telemetry.Log
	if !s.process.Clock.Now().Before(policy.RenewAt(state.Intermediate.Certificate)) {
		next, err := s.renewIntermediate(ctx, state)
		if err != nil {
			log.Warn("intermediate not renewed; the old one stays in use", obs.KeyError, err, "expires", state.Intermediate.Certificate.NotAfter)
		} else {
			state = next
		}
	}
	leaf := s.source.Material().Chain[0]
	if s.process.Clock.Now().Before(policy.RenewAt(leaf)) && leaf.CheckSignatureFrom(state.Intermediate.Certificate) == nil {
		return state
	}
	if err := s.renewLeaf(state); err != nil {
		log.Warn("own certificate not renewed; the old one stays in use", obs.KeyError, err, "expires", leaf.NotAfter)
	}
	return state
}

func (s *Service) renewLeaf(state *keystore.State) error {
	material, err := s.issueOwn(s.handlers, state)
	if err != nil {
		return err
	}
	return s.source.Set(material)
}

// renewIntermediate gets a new intermediate, from the own root or the primary's, and keeps it
// before it is used.
func (s *Service) renewIntermediate(ctx context.Context, state *keystore.State) (*keystore.State, error) {
	next := *state
	var err error
	if state.Root != nil {
		next.Intermediate, err = s.newIntermediate(state)
	} else {
		next.Intermediate, next.Roots, err = s.askIntermediate(ctx, state)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.store.Save(&next), s.writeRoots(&next)); err != nil {
		return nil, err
	}
	s.handlers.Replace(known(&next))
	s.process.Telemetry.Log.Info("intermediate renewed", "expires", next.Intermediate.Certificate.NotAfter)
	return &next, nil
}

func (s *Service) askIntermediate(ctx context.Context, state *keystore.State) (*issuer.Authority, []*x509.Certificate, error) {
	conn, err := rpc.DialDatacenter(s.cfg.Endpoints.Gateway, state.PrimaryDatacenter, Name, rpc.ClientParams{Identity: s.source, Telemetry: s.process.Telemetry})
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = conn.Close() }()
	key, err := issuer.NewKey()
	if err != nil {
		return nil, nil, err
	}
	csr, err := issuer.Request(key)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := cav1.NewCertificateServiceClient(conn).RenewIntermediate(ctx, &cav1.RenewIntermediateRequest{Csr: csr})
	if err != nil {
		return nil, nil, err
	}
	certs, err := issuer.ParseCertificates(append([][]byte{resp.GetIntermediate()}, resp.GetRoots()...))
	if err != nil {
		return nil, nil, err
	}
	cert, roots := certs[0], certs[1:]
	if err := issuer.CheckIntermediate(cert, &key.PublicKey, roots, state.FederationID, s.cfg.Server.Datacenter, s.process.Clock.Now()); err != nil {
		return nil, nil, err
	}
	return &issuer.Authority{Certificate: cert, Key: key}, roots, nil
}

// publishRoots tells the registry the federation's trust anchors, once, as soon as it can. The
// primary's registry passes them on by replication.
func (s *Service) publishRoots(ctx context.Context, state *keystore.State) error {
	if state.Root == nil {
		return nil
	}
	request := &registryv1.PublishRootsRequest{RequestId: uuid.NewString()}
	for _, root := range state.Roots {
		digest := sha256.Sum256(root.Raw)
		request.Roots = append(request.Roots, &registryv1.CARoot{Fingerprint: hex.EncodeToString(digest[:]), Certificate: root.Raw, Active: true})
	}
	for retry := backoff.New(retryMin, publishMax); ; {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := registryv1.NewTrustServiceClient(s.registry).PublishRoots(callCtx, request)
		cancel()
		if err == nil {
			return nil
		}
		s.process.Telemetry.Log.Debug("registry did not take the roots yet", obs.KeyError, err)
		if retry.Wait(ctx) != nil {
			return nil
		}
	}
}
