package ca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/ca/internal/api"
	"konsul.dev/services/ca/internal/issuer"
	"konsul.dev/services/ca/internal/joiner"
	"konsul.dev/services/ca/internal/jointoken"
	"konsul.dev/services/ca/internal/keystore"
)

const (
	gossipKeyLength = 32
	rootsMode       = 0o644
)

// Service is a ca. Start and Stop are called once each, in this order; the rest is safe for
// concurrent use in between.
type Service struct {
	cfg      Config
	process  konsulfx.Process
	host     *konsulfx.Host
	secret   []byte
	previous []byte // the secret before; may be nil
	store    *keystore.Store
	handlers *api.Handlers
	source   *identity.Rotating
	registry *grpc.ClientConn
	state    *keystore.State
	serving  atomic.Bool
}

// New returns a ca that does nothing yet, or what is wrong with its configuration.
func New(cfg Config, process konsulfx.Process) (*Service, error) {
	secret, err := identity.ReadSecret(cfg.Server.SecretFile, Name)
	if err != nil {
		return nil, err
	}
	identity.WarnIfExposed(process.Telemetry.Log, cfg.Server.SecretFile)
	previous, err := readPrevious(cfg, process.Telemetry.Log)
	if err != nil {
		return nil, err
	}
	store, err := keystore.Open(filepath.Join(cfg.Server.DataDir, Name), cfg.Server.Datacenter, secret, previous)
	if err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, process: process, secret: secret, previous: previous, store: store,
		host: konsulfx.NewHost(konsulfx.HostParams{Name: Name, Config: cfg.Base, Process: process}),
	}, nil
}

// readPrevious returns the datacenter secret that was replaced; nil if none is named.
func readPrevious(cfg Config, log *slog.Logger) ([]byte, error) {
	path := cfg.CA.PreviousSecretFile
	if path == "" {
		return nil, nil
	}
	identity.WarnIfExposed(log, path)
	secret, err := identity.ReadSecret(path, Name)
	if f, ok := fault.As(err); ok {
		return nil, f.WithField("ca.previous_secret_file").WithRemedy("name the file of the secret before, or nothing once the ca has started with the new one")
	}
	return secret, err
}

// Identity returns the ca's own identity; nil before Start.
func (s *Service) Identity() identity.Source { return s.host.Identity() }

// Ready returns nil once the ca can sign.
func (s *Service) Ready(context.Context) error {
	if !s.serving.Load() {
		return errors.New("not started")
	}
	return nil
}

// Start opens the sealed state, or makes it: a root in the primary, an intermediate by join token
// in a secondary. Then it serves.
func (s *Service) Start(ctx context.Context) error {
	return s.host.Start(ctx, s.Stop,
		// The port comes first: a second ca on this address must fail before it changes anything.
		s.host.Listen("ca.listen", s.cfg.CA.Listen),
		s.open,
		s.assemble,
		s.run,
	)
}

func (s *Service) run(context.Context) error {
	s.host.Go("renew", func(ctx context.Context) error { return s.renew(ctx, s.state) })
	s.host.Go("publish roots", func(ctx context.Context) error { return s.publishRoots(ctx, s.state) })
	s.serving.Store(true)
	return nil
}

// open opens the state, and tells others what to trust.
func (s *Service) open(ctx context.Context) (err error) {
	if s.state, err = s.load(ctx); err != nil {
		return err
	}
	return s.writeRoots(s.state)
}

// assemble makes the handlers, and with them the ca's own identity.
func (s *Service) assemble(context.Context) error {
	state := s.state
	metrics, err := api.NewMetrics(s.process.Telemetry.Metrics)
	if err != nil {
		return fmt.Errorf("register ca metrics: %w", err)
	}
	params := api.Params{
		Datacenter: s.cfg.Server.Datacenter, State: known(state), Clock: s.process.Clock, Metrics: metrics, Log: s.process.Telemetry.Log,
		Limits: api.Limits{
			LeafTTL: s.cfg.CA.LeafTTL, IntermediateTTL: s.cfg.CA.IntermediateTTL,
			JoinTokenTTL: s.cfg.CA.JoinTokenTTL, MaxJoinTokenTTL: s.cfg.CA.MaxJoinTokenTTL,
			PrimaryGateways: s.cfg.CA.PrimaryGateways, DatacenterSecret: s.secret,
			AcceptDatacenterSecret: s.cfg.CA.AcceptDatacenterSecret,
		},
	}
	material, err := s.issueOwn(api.New(params), state)
	if err != nil {
		return err
	}
	if s.source, err = identity.NewRotating(material); err != nil {
		return err
	}
	s.host.Adopt(s.source)
	if s.registry, err = s.host.Dial("registry", s.cfg.Endpoints.Registry); err != nil {
		return err
	}
	params.Trust = registryv1.NewTrustServiceClient(s.registry)
	s.handlers = api.New(params)
	server, err := s.host.NewServer(rpc.ServerParams{
		Refused: s.handlers.Refused, Unary: []grpc.UnaryServerInterceptor{s.handlers.Door},
	})
	if err != nil {
		return err
	}
	cav1.RegisterEnrollmentServiceServer(server, s.handlers)
	cav1.RegisterCertificateServiceServer(server, s.handlers)
	return nil
}

// known returns what of the state the handlers need.
func known(state *keystore.State) *api.State {
	k := &api.State{
		FederationID: state.FederationID, PrimaryDatacenter: state.PrimaryDatacenter, DatacenterID: state.DatacenterID,
		Roots: state.Roots, GossipKeys: state.GossipKeys,
		Intermediate: state.Intermediate.Certificate, Leaves: state.Intermediate,
	}
	if state.Root != nil {
		k.Root = state.Root
	}
	return k
}

// load returns the kept state, or makes and keeps a first one.
func (s *Service) load(ctx context.Context) (*keystore.State, error) {
	state, err := s.store.Load()
	if err == nil {
		err = s.checkParts(state)
	}
	if err != nil {
		return nil, err
	}
	if state != nil {
		return s.identified(state)
	}
	if s.cfg.Primary() {
		state, err = s.found()
	} else {
		state, err = s.join(ctx)
	}
	if err != nil {
		return nil, err
	}
	if state.DatacenterID, err = identity.DatacenterID(s.secret, s.cfg.Server.Datacenter); err != nil {
		return nil, err
	}
	if err := s.store.Save(state); err != nil {
		return nil, err
	}
	if err := s.store.DropPending(); err != nil {
		return nil, err
	}
	s.process.Telemetry.Log.Info("this datacenter's authority is ready", "federation_id", state.FederationID, "primary", s.cfg.Primary())
	return state, nil
}

// identified returns the state with the datacenter's id. One that an earlier version kept has none:
// it is derived from the secret that the datacenter was created with, and kept, as that may be
// replaced.
func (s *Service) identified(state *keystore.State) (*keystore.State, error) {
	if state.DatacenterID != "" {
		return state, nil
	}
	first := s.secret
	if s.previous != nil {
		first = s.previous
	}
	var err error
	if state.DatacenterID, err = identity.DatacenterID(first, s.cfg.Server.Datacenter); err != nil {
		return nil, err
	}
	return state, s.store.Save(state)
}

// found makes a new federation.
func (s *Service) found() (*keystore.State, error) {
	if s.cfg.CA.JoinTokenFile != "" {
		return nil, fault.Invalid("server.primary_datacenter", "makes %s the primary of a new federation, but ca.join_token_file is to join one", s.cfg.Server.Datacenter).
			WithRemedy("name the primary that made the token, or remove ca.join_token_file")
	}
	now := s.process.Clock.Now()
	state := &keystore.State{FederationID: uuid.NewString(), PrimaryDatacenter: s.cfg.Server.Datacenter}
	root, err := issuer.NewRoot(state.FederationID, now, s.cfg.CA.RootTTL)
	if err != nil {
		return nil, err
	}
	state.Root, state.Roots = root, []*x509.Certificate{root.Certificate}
	if state.Intermediate, err = s.newIntermediate(state); err != nil {
		return nil, err
	}
	key := make([]byte, gossipKeyLength)
	_, _ = rand.Read(key) // never fails, see crypto/rand
	state.GossipKeys = [][]byte{key}
	return state, nil
}

func (s *Service) newIntermediate(state *keystore.State) (*issuer.Authority, error) {
	key, err := issuer.NewKey()
	if err != nil {
		return nil, err
	}
	cert, err := state.Root.SignIntermediate(state.FederationID, s.cfg.Server.Datacenter, &key.PublicKey, s.process.Clock.Now(), s.cfg.CA.IntermediateTTL)
	if err != nil {
		return nil, err
	}
	return &issuer.Authority{Certificate: cert, Key: key}, nil
}

// join gets this secondary's intermediate from the primary.
func (s *Service) join(ctx context.Context) (*keystore.State, error) {
	if s.cfg.CA.JoinTokenFile == "" {
		return nil, fault.Invalid("ca.join_token_file", "is empty, and %s has not joined a federation yet", s.cfg.Server.Datacenter).
			WithRemedy("make a token in the primary: konsulctl datacenter token create --datacenter " + s.cfg.Server.Datacenter)
	}
	token, err := s.readToken()
	if err != nil {
		return nil, err
	}
	pending, err := s.store.Pending(token.ID)
	if err != nil {
		return nil, err
	}
	id, err := identity.DatacenterID(s.secret, s.cfg.Server.Datacenter)
	if err != nil {
		return nil, err
	}
	state, err := joiner.Join(ctx, token, joiner.Applicant{
		Datacenter: &federationv1.Datacenter{
			Name: s.cfg.Server.Datacenter, Id: id, GatewayAddresses: s.cfg.CA.PrimaryGateways,
		},
		Now: s.process.Clock.Now, Key: pending.Key,
	}, s.cfg.CA.JoinTimeout)
	// Only the primary's own refusal, which has a reason, ends the matter: not silence, nor an
	// impostor on the way, nor a clock.
	if reason := fault.ReasonOf(err); err != nil && fault.CodeOf(err) != fault.Unavailable && reason != "" && reason != joiner.ReasonClocks {
		err = errors.Join(err, s.store.DropPending())
	}
	return state, err
}

// readToken returns the join token if this datacenter may use it.
func (s *Service) readToken() (jointoken.Token, error) {
	path := s.cfg.CA.JoinTokenFile
	identity.WarnIfExposed(s.process.Telemetry.Log, path)
	text, err := os.ReadFile(path)
	if err != nil {
		return jointoken.Token{}, fault.Invalid("ca.join_token_file", "cannot be read: %v", err).
			WithRemedy("make a token in the primary: konsulctl datacenter token create --datacenter " + s.cfg.Server.Datacenter)
	}
	token, err := jointoken.Parse(string(text))
	if err != nil {
		return jointoken.Token{}, err
	}
	if err := token.Usable(s.cfg.Server.Datacenter, s.process.Clock.Now()); err != nil {
		return jointoken.Token{}, err
	}
	if token.PrimaryDatacenter != s.cfg.Server.PrimaryDatacenter {
		return jointoken.Token{}, fault.Invalid("server.primary_datacenter", "is %q, but the join token comes from %q", s.cfg.Server.PrimaryDatacenter, token.PrimaryDatacenter).
			WithRemedy("name the primary that made the token")
	}
	return token, nil
}

func (s *Service) writeRoots(state *keystore.State) error {
	path := s.cfg.CA.WriteRootsFile
	if path == "" {
		path = filepath.Join(s.cfg.Server.DataDir, Name, "roots.pem")
	}
	var text bytes.Buffer
	for _, root := range state.Roots {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}); err != nil {
			return fmt.Errorf("encode trust anchor: %w", err)
		}
	}
	if err := identity.WriteFile(path, text.Bytes()); err != nil {
		return err
	}
	// Trust anchors are no secret: whoever is to verify this federation reads them.
	if err := os.Chmod(path, rootsMode); err != nil {
		return fmt.Errorf("open trust anchors to readers: %w", err)
	}
	return nil
}

// issueOwn signs the ca's own leaf.
func (s *Service) issueOwn(handlers *api.Handlers, state *keystore.State) (identity.Material, error) {
	key, err := issuer.NewKey()
	if err != nil {
		return identity.Material{}, err
	}
	chain, err := handlers.IssueLeaf(Name, "", &key.PublicKey, nil, nil)
	if err != nil {
		return identity.Material{}, err
	}
	return identity.Material{Chain: chain, Key: key, Roots: state.Roots}, nil
}

// Stop drains the server and ends the loops.
func (s *Service) Stop(ctx context.Context) error { return s.host.Stop(ctx) }
