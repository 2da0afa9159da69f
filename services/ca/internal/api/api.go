// Package api serves the ca's gRPC contracts: it authenticates, asks the policy, signs, and
// answers.
package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
	cav1 "konsul.dev/proto/gen/konsul/ca/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/ca/internal/jointoken"
	"konsul.dev/services/ca/internal/policy"
)

// Limits of what the ca gives.
type Limits struct {
	LeafTTL          time.Duration
	IntermediateTTL  time.Duration
	JoinTokenTTL     time.Duration
	MaxJoinTokenTTL  time.Duration
	PrimaryGateways  []string
	DatacenterSecret []byte
	// AcceptDatacenterSecret takes proofs made with the datacenter secret itself, as components of
	// earlier versions make them.
	AcceptDatacenterSecret bool
}

// State is what the handlers know of the federation.
type State struct {
	FederationID      string
	PrimaryDatacenter string
	DatacenterID      string
	// Roots are the federation's trust anchors, the one that signs first.
	Roots      []*x509.Certificate
	GossipKeys [][]byte
	// Intermediate is what Leaves signs with.
	Intermediate *x509.Certificate
	Leaves       LeafSigner
	// Root signs intermediates; nil in a secondary.
	Root IntermediateSigner
}

// LeafSigner signs the keys of services.
type LeafSigner interface {
	SignLeaf(id identity.ID, key *ecdsa.PublicKey, names []string, ips []net.IP, now time.Time, ttl time.Duration) (*x509.Certificate, error)
}

// IntermediateSigner signs the keys of datacenters' cas.
type IntermediateSigner interface {
	SignIntermediate(federationID, datacenter string, key *ecdsa.PublicKey, now time.Time, ttl time.Duration) (*x509.Certificate, error)
}

// Params is what the handlers are made of.
type Params struct {
	Datacenter string
	State      *State
	Limits     Limits
	// Trust is the registry's side of join tokens and members.
	Trust   registryv1.TrustServiceClient
	Clock   clock.Clock
	Metrics *Metrics
	// Log gets the audit lines.
	Log *slog.Logger
}

// Handlers serve EnrollmentService and CertificateService. Safe for concurrent use.
type Handlers struct {
	cav1.UnimplementedEnrollmentServiceServer
	cav1.UnimplementedCertificateServiceServer

	*auditor

	p  Params
	mu sync.RWMutex // guards p.State
}

// New returns the handlers.
func New(p Params) *Handlers {
	return &Handlers{p: p, auditor: &auditor{log: p.Log, clock: p.Clock}}
}

// Replace puts a new state into use.
func (h *Handlers) Replace(state *State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.p.State = state
}

func (h *Handlers) state() *State {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.p.State
}

// IssueLeaf signs a leaf for a service of this datacenter, for an agent of a node.
func (h *Handlers) IssueLeaf(service, node string, key *ecdsa.PublicKey, names []string, ips []net.IP) ([]*x509.Certificate, error) {
	state := h.state()
	id := identity.ID{FederationID: state.FederationID, Datacenter: h.p.Datacenter, Kind: identity.KindService, Service: service, Node: node}
	leaf, err := state.Leaves.SignLeaf(id, key, names, ips, h.p.Clock.Now(), h.p.Limits.LeafTTL)
	if err != nil {
		return nil, err
	}
	h.p.Metrics.Issued.WithLabelValues(service).Inc()
	return []*x509.Certificate{leaf, state.Intermediate}, nil
}

// Enroll gives a service its first certificate.
func (h *Handlers) Enroll(ctx context.Context, req *cav1.EnrollRequest) (_ *cav1.EnrollResponse, err error) {
	defer func() {
		if err != nil {
			h.Refused(ctx, cav1.EnrollmentService_Enroll_FullMethodName, err)
		}
	}()
	exporter, err := exporterOf(ctx)
	if err != nil {
		return nil, err
	}
	// The names first: what is refused is written down, and a stranger may send names of any
	// length.
	if err := policy.CheckIdentity(req.GetService(), req.GetNode()); err != nil {
		return nil, err
	}
	key, err := h.provenKey(req, exporter)
	if err != nil {
		h.p.Metrics.Refused.WithLabelValues("secret").Inc()
		return nil, err
	}
	if req.GetDatacenter() != h.p.Datacenter {
		return nil, fault.Invalid("server.datacenter", "this is the ca of %s, not of %s", h.p.Datacenter, req.GetDatacenter())
	}
	chain, err := h.signRequest(req.GetService(), req.GetNode(), req.GetCsr())
	if err != nil {
		return nil, err
	}
	h.handedOut(ctx, cav1.EnrollmentService_Enroll_FullMethodName,
		"component", req.GetService(), obs.KeyNode, req.GetNode(), "serial", chain[0].SerialNumber.Text(16), "expires", chain[0].NotAfter)
	certificates, roots := ders(chain), ders(h.state().Roots)
	return &cav1.EnrollResponse{
		CertificateChain: certificates, Roots: roots, FederationId: h.state().FederationID,
		Proof: identity.ServerProof(key, exporter, certificates, roots),
	}, nil
}

// provenKey returns the key that a request's proof was made with. It is the one of exactly the
// component and node that the request asks for, so that nobody proves to be anyone else.
func (h *Handlers) provenKey(req *cav1.EnrollRequest, exporter []byte) ([]byte, error) {
	holder := identity.Holder{Component: req.GetService(), Node: req.GetNode()}
	key, err := identity.DeriveKey(h.p.Limits.DatacenterSecret, holder)
	if err != nil {
		return nil, err
	}
	proves := func(key []byte) bool {
		return hmac.Equal(req.GetProof(), identity.ClientProof(key, exporter, req.GetCsr()))
	}
	switch {
	case proves(key):
		return key, nil
	case !proves(h.p.Limits.DatacenterSecret):
		return nil, fault.New(fault.Unauthenticated, "ENROLLMENT_KEY_MISMATCH",
			"the proof does not hold: the key is not the one of %s, or derived from another datacenter secret", holder).
			WithField("server.secret_file").WithRemedy("derive it from the secret of this ca: `konsulctl secret derive`")
	case !h.p.Limits.AcceptDatacenterSecret:
		return nil, fault.New(fault.Unauthenticated, "DATACENTER_SECRET_REFUSED",
			"the proof was made with the datacenter secret itself, as earlier versions make it: upgrade the %s, or set ca.accept_datacenter_secret until then", holder).
			WithField("server.secret_file").WithRemedy("upgrade the component, or set ca.accept_datacenter_secret until it is upgraded")
	default:
		return h.p.Limits.DatacenterSecret, nil
	}
}

// Renew signs a new leaf for the caller's own identity.
func (h *Handlers) Renew(ctx context.Context, req *cav1.RenewRequest) (*cav1.RenewResponse, error) {
	caller := rpc.CallerFrom(ctx).Peer
	chain, err := h.signRequest(caller.Service, caller.Node, req.GetCsr())
	if err != nil {
		return nil, err
	}
	return &cav1.RenewResponse{CertificateChain: ders(chain), Roots: ders(h.state().Roots)}, nil
}

func (h *Handlers) signRequest(service, node string, der []byte) ([]*x509.Certificate, error) {
	if err := policy.CheckIdentity(service, node); err != nil {
		return nil, err
	}
	csr, key, err := parseRequest(der)
	if err != nil {
		return nil, err
	}
	names, ips := policy.HostNames(service, csr)
	return h.IssueLeaf(service, node, key, names, ips)
}

// Join admits a new datacenter: it consumes the token and signs the intermediate.
func (h *Handlers) Join(ctx context.Context, req *cav1.JoinRequest) (_ *cav1.JoinResponse, err error) {
	defer func() {
		if err != nil {
			h.Refused(ctx, cav1.EnrollmentService_Join_FullMethodName, err)
		}
	}()
	state, err := h.primary()
	if err != nil {
		return nil, err
	}
	exporter, err := exporterOf(ctx)
	if err != nil {
		return nil, err
	}
	token, err := h.p.Trust.GetJoinToken(ctx, &registryv1.GetJoinTokenRequest{Id: req.GetTokenId()})
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		return nil, err
	}
	public := ed25519.PublicKey(token.GetToken().GetPublicKey())
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, identity.JoinMessage(exporter, req.GetCsr()), req.GetProof()) {
		h.p.Metrics.Refused.WithLabelValues("join_token").Inc()
		return nil, fault.New(fault.Unauthenticated, "JOIN_TOKEN_UNKNOWN", "the primary knows no such join token").WithRemedy("make a new one in the primary")
	}
	if refusal := jointoken.Admits(token.GetToken().GetDatacenter(), req.GetDatacenter().GetName(), token.GetToken().GetExpiresAt().AsTime(), h.p.Clock.Now()); refusal != nil {
		return nil, refusal
	}
	_, key, err := parseRequest(req.GetCsr())
	if err != nil {
		return nil, err
	}
	cert, err := state.Root.SignIntermediate(state.FederationID, req.GetDatacenter().GetName(), key, h.p.Clock.Now(), h.p.Limits.IntermediateTTL)
	if err != nil {
		return nil, err
	}
	requestID, err := joinRequestID(req, key)
	if err != nil {
		return nil, err
	}
	// The commit that consumes the token decides between two that try it at once.
	if _, err := h.p.Trust.AdmitDatacenter(ctx, &registryv1.AdmitDatacenterRequest{
		TokenId: req.GetTokenId(), Datacenter: req.GetDatacenter(), RequestId: requestID,
	}); err != nil {
		return nil, err
	}
	h.handedOut(ctx, cav1.EnrollmentService_Join_FullMethodName, "datacenter", req.GetDatacenter().GetName(),
		"token", req.GetTokenId(), "serial", cert.SerialNumber.Text(16), "expires", cert.NotAfter)
	return &cav1.JoinResponse{
		Intermediate: cert.Raw, Roots: ders(state.Roots), FederationId: state.FederationID,
		PrimaryDatacenter: h.p.Datacenter, GossipKeys: state.GossipKeys,
	}, nil
}

// joinRequestID names an admission. The same applicant asking again, because the answer was lost,
// is admitted again; another key is another request, for which the token is used up.
func joinRequestID(req *cav1.JoinRequest, key *ecdsa.PublicKey) (string, error) {
	public, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	digest := sha256.New()
	for _, part := range [][]byte{[]byte(req.GetTokenId()), []byte(req.GetDatacenter().GetId()), public} {
		sum := sha256.Sum256(part)
		digest.Write(sum[:])
	}
	return "join-" + hex.EncodeToString(digest.Sum(nil)), nil
}

// RenewIntermediate signs a new intermediate for the calling ca's own datacenter.
func (h *Handlers) RenewIntermediate(ctx context.Context, req *cav1.RenewIntermediateRequest) (_ *cav1.RenewIntermediateResponse, err error) {
	defer func() {
		if err != nil {
			h.Refused(ctx, cav1.CertificateService_RenewIntermediate_FullMethodName, err)
		}
	}()
	state, err := h.primary()
	if err != nil {
		return nil, err
	}
	datacenter := rpc.CallerFrom(ctx).Peer.Datacenter
	if err := policy.CheckRenewal(h.p.Datacenter, datacenter); err != nil {
		return nil, err
	}
	_, key, err := parseRequest(req.GetCsr())
	if err != nil {
		return nil, err
	}
	cert, err := state.Root.SignIntermediate(state.FederationID, datacenter, key, h.p.Clock.Now(), h.p.Limits.IntermediateTTL)
	if err != nil {
		return nil, err
	}
	h.handedOut(ctx, cav1.CertificateService_RenewIntermediate_FullMethodName,
		"datacenter", datacenter, "serial", cert.SerialNumber.Text(16), "expires", cert.NotAfter)
	return &cav1.RenewIntermediateResponse{Intermediate: cert.Raw, Roots: ders(state.Roots)}, nil
}

// GetTrustBundle returns the trust anchors.
func (h *Handlers) GetTrustBundle(context.Context, *cav1.GetTrustBundleRequest) (*cav1.GetTrustBundleResponse, error) {
	state := h.state()
	resp := &cav1.GetTrustBundleResponse{FederationId: state.FederationID, TrustDomain: identity.TrustDomain(state.FederationID)}
	for _, root := range state.Roots {
		resp.Roots = append(resp.Roots, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})))
	}
	return resp, nil
}

// GetGossipKey returns the federation's gossip keys, and the datacenter's id to a component that
// has no secret to derive it.
func (h *Handlers) GetGossipKey(ctx context.Context, _ *cav1.GetGossipKeyRequest) (*cav1.GetGossipKeyResponse, error) {
	h.handedOut(ctx, cav1.CertificateService_GetGossipKey_FullMethodName)
	state := h.state()
	return &cav1.GetGossipKeyResponse{Keys: state.GossipKeys, DatacenterId: state.DatacenterID}, nil
}

// CreateJoinToken makes a token and has the registry remember its public half.
func (h *Handlers) CreateJoinToken(ctx context.Context, req *cav1.CreateJoinTokenRequest) (*cav1.CreateJoinTokenResponse, error) {
	state, err := h.primary()
	if err != nil {
		return nil, err
	}
	if !config.ValidDatacenter(req.GetDatacenter()) {
		return nil, fault.Invalid("datacenter", "%q is no datacenter name", req.GetDatacenter()).WithRemedy("use a DNS label such as us-west")
	}
	ttl := h.p.Limits.JoinTokenTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	if ttl <= 0 || ttl > h.p.Limits.MaxJoinTokenTTL {
		return nil, fault.Invalid("ttl", "%s is not between 0 and %s", ttl, h.p.Limits.MaxJoinTokenTTL)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make token key: %w", err)
	}
	token := jointoken.Token{
		ID: uuid.NewString(), FederationID: state.FederationID, PrimaryDatacenter: h.p.Datacenter, Gateways: h.p.Limits.PrimaryGateways,
		Root: state.Roots[0].Raw, Seed: private.Seed(), Datacenter: req.GetDatacenter(), ExpiresAt: h.p.Clock.Now().Add(ttl),
	}
	if _, err := h.p.Trust.PutJoinToken(ctx, &registryv1.PutJoinTokenRequest{
		RequestId: uuid.NewString(),
		Token: &registryv1.JoinToken{
			Id: token.ID, PublicKey: public, Datacenter: token.Datacenter, ExpiresAt: timestamppb.New(token.ExpiresAt),
		},
	}); err != nil {
		return nil, err
	}
	h.handedOut(ctx, cav1.CertificateService_CreateJoinToken_FullMethodName, "datacenter", token.Datacenter, "token", token.ID, "expires", token.ExpiresAt)
	return &cav1.CreateJoinTokenResponse{Token: token.String(), Id: token.ID, ExpiresAt: timestamppb.New(token.ExpiresAt)}, nil
}

func (h *Handlers) primary() (*State, error) {
	state := h.state()
	if state.Root == nil {
		return nil, fault.New(fault.FailedPrecondition, "NOT_PRIMARY", "%s holds no root: only the primary %s admits datacenters", h.p.Datacenter, state.PrimaryDatacenter).
			WithRemedy("ask "+state.PrimaryDatacenter).WithMeta("primary_datacenter", state.PrimaryDatacenter)
	}
	return state, nil
}

func exporterOf(ctx context.Context) ([]byte, error) {
	state, ok := rpc.PeerState(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, "TLS_REQUIRED", "the call did not come over TLS")
	}
	return identity.Exporter(state)
}

func parseRequest(der []byte) (*x509.CertificateRequest, *ecdsa.PublicKey, error) {
	csr, err := policy.ParseRequest(der)
	if err != nil {
		return nil, nil, err
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, nil, fault.Invalid("csr", "key is not ECDSA")
	}
	return csr, key, nil
}

func ders(certs []*x509.Certificate) [][]byte {
	list := make([][]byte, len(certs))
	for i, c := range certs {
		list[i] = c.Raw
	}
	return list
}
