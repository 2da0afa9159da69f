// Package registrytest is a registry for the replicator's tests: it keeps global records in memory,
// speaks the real gRPC contract over mutual TLS as source and as target, and misbehaves on request.
// Safe for concurrent use.
package registrytest

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"

	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/pkg/rpc"
)

// Registry is one datacenter's registry.
type Registry struct {
	federationv1.UnimplementedFederationServiceServer
	federationv1.UnimplementedReplicationServiceServer

	datacenter string
	identity   identity.Source
	addr       string

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when anything below changes
	record   *federationv1.Federation
	index    uint64
	log      []*federationv1.ReplicatedEntry
	piece    int
	mute     bool
	unaware  bool
	stale    int
	cut      int // grows when streams must end
	cursors  map[string]*federationv1.ReplicationCursor
	rows     map[string]*federationv1.ReplicatedEntry
	applied  []*federationv1.ApplyReplicatedRequest
	requests []*federationv1.ReplicationRequest
	server   *rpc.Server
}

// Start serves a registry of a datacenter that knows a federation record, until the test ends.
func Start(t testing.TB, source identity.Source, record *federationv1.Federation) *Registry {
	t.Helper()
	r := &Registry{
		datacenter: source.ID().Datacenter, identity: source, addr: "127.0.0.1:0",
		changed: make(chan struct{}), record: record,
		cursors: map[string]*federationv1.ReplicationCursor{}, rows: map[string]*federationv1.ReplicatedEntry{},
	}
	r.Serve(t)
	t.Cleanup(r.Down)
	return r
}

// Serve opens the port, the same one after Down.
func (r *Registry) Serve(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", r.addr)
	require.NoError(t, err)
	r.addr = listener.Addr().String()
	server, err := rpc.NewServer(rpc.ServerParams{
		Name: "registry", Identity: r.identity, Telemetry: obs.Discard(),
	})
	require.NoError(t, err)
	federationv1.RegisterFederationServiceServer(server, r)
	federationv1.RegisterReplicationServiceServer(server, r)
	r.mu.Lock()
	r.server = server
	r.mu.Unlock()
	go func() { _ = server.Serve(listener) }()
}

// Down cuts every connection and closes the port.
func (r *Registry) Down() {
	r.mu.Lock()
	server := r.server
	r.mu.Unlock()
	server.Stop()
}

// Addr returns where it listens.
func (r *Registry) Addr() string { return r.addr }

func (r *Registry) change(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Commit writes global records as this datacenter's own, each at an index of its own.
func (r *Registry) Commit(entries ...*federationv1.ReplicatedEntry) {
	r.change(func() {
		for _, e := range entries {
			r.index++
			e = proto.CloneOf(e)
			e.ModifyIndex, e.OriginDc, e.OriginEpoch = int64(r.index), r.datacenter, r.record.GetEpoch()
			r.log = append(r.log, e)
		}
	})
}

// Touch moves the index as local writes do.
func (r *Registry) Touch() { r.change(func() { r.index++ }) }

// Mute makes streams silent, or speak again.
func (r *Registry) Mute(mute bool) { r.change(func() { r.mute = mute }) }

// Unaware makes it serve replicators of a later epoch, which a primary that has not heard of its
// successor must not.
func (r *Registry) Unaware() { r.change(func() { r.unaware = true }) }

// Lag makes the next n commits meet a server that has not caught up.
func (r *Registry) Lag(n int) { r.change(func() { r.stale = n }) }

// Cut ends every stream.
func (r *Registry) Cut() { r.change(func() { r.cut++ }) }

// Pieces makes messages carry at most n entries.
func (r *Registry) Pieces(n int) { r.change(func() { r.piece = n }) }

// SetRecord changes the federation record.
func (r *Registry) SetRecord(record *federationv1.Federation) { r.change(func() { r.record = record }) }

// SetCursor stores a cursor as another replicator would.
func (r *Registry) SetCursor(source string, index, epoch uint64) {
	r.change(func() {
		r.cursors[source] = &federationv1.ReplicationCursor{SourceDatacenter: source, Index: index, Epoch: epoch}
	})
}

// Cursor returns the stored cursor's index.
func (r *Registry) Cursor(source string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cursors[source].GetIndex()
}

// Value returns a copied record's value.
func (r *Registry) Value(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.rows[rowKey(&federationv1.ReplicatedEntry{Key: key})].GetValue())
}

// Rows returns how many copies there are.
func (r *Registry) Rows() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.rows)
}

// Applied returns every commit of copies.
func (r *Registry) Applied() []*federationv1.ApplyReplicatedRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.applied)
}

// Requests returns every stream that was asked for.
func (r *Registry) Requests() []*federationv1.ReplicationRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// GetFederation implements FederationService.
func (r *Registry) GetFederation(context.Context, *federationv1.GetFederationRequest) (*federationv1.GetFederationResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &federationv1.GetFederationResponse{Federation: r.record}, nil
}

func rowKey(e *federationv1.ReplicatedEntry) string {
	return strconv.Itoa(int(e.GetType())) + "/" + e.GetKey()
}
