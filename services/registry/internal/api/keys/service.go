package keys

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
)

// Router brings a call to where it is answered.
type Router interface {
	Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error)
}

// Service is the KVService.
type Service struct {
	registryv1.UnimplementedKVServiceServer
	*api.Core
	Router Router
	Writer kv.Writer
	// MaxTxnBytes bounds a transaction.
	MaxTxnBytes int
	// Operations are counted by kind.
	Operations *prometheus.CounterVec
}

// Get reads one key.
func (s *Service) Get(ctx context.Context, req *registryv1.GetRequest) (*registryv1.GetResponse, error) {
	s.Operations.WithLabelValues("get").Inc()
	key, err := kv.KeyOf(ctx, req)
	if err != nil {
		return nil, err
	}
	key = narrow(ctx, key)
	var entry *registryv1.Entry
	var index, changed uint64
	read := func() error {
		return s.View(ctx, req, func(r record.Reader) (err error) {
			entry, changed, err = kv.Get(r, key)
			index = r.Index()
			return err
		})
	}
	if req.GetIndex() > 0 { // Most reads do not wait, and need not say for what.
		err = s.Block(ctx, req, kv.Filters(key, true), func(uint64) (uint64, error) {
			err := read()
			return changed, err
		})
	}
	if err == nil {
		err = read()
	}
	if err != nil {
		return nil, err
	}
	if entry == nil {
		return nil, api.WithIndex(kv.NotFound(key), index)
	}
	return &registryv1.GetResponse{Entry: entry, Meta: s.MetaOf(entry.GetScope() == registryv1.Scope_SCOPE_GLOBAL, index)}, nil
}

// List returns the entries below a prefix.
func (s *Service) List(ctx context.Context, req *registryv1.ListRequest) (*registryv1.ListResponse, error) {
	s.Operations.WithLabelValues("list").Inc()
	prefix, err := record.ParsePrefix(req.GetPrefix(), req.GetScope())
	if err != nil {
		return nil, err
	}
	err = s.Block(ctx, req, kv.Filters(prefix, false), func(since uint64) (changed uint64, err error) {
		err = s.Store.View(func(r record.Reader) (err error) {
			changed, err = kv.Changed(r, prefix, since)
			return err
		})
		return changed, err
	})
	if err != nil {
		return nil, err
	}
	access, filtered := acl.Read, false
	if req.GetKeysOnly() {
		access = acl.List
	}
	resp := &registryv1.ListResponse{}
	err = s.View(ctx, req, func(r record.Reader) error {
		page, err := kv.List(r, prefix, kv.ListOptions{
			KeysOnly: req.GetKeysOnly(), Limit: req.GetLimit(), PageToken: req.GetPageToken(), Separator: req.GetSeparator(), Sees: api.Sees(ctx, acl.KV, access, &filtered),
		})
		resp.Entries, resp.Folders, resp.NextPageToken = page.Entries, page.Folders, page.Next
		resp.Meta = s.MetaOf(slices.Contains(prefix.Read(), registryv1.Scope_SCOPE_GLOBAL), r.Index())
		resp.Meta.ResultsFiltered = filtered
		return err
	})
	return resp, err
}

// Set writes one key.
func (s *Service) Set(ctx context.Context, req *registryv1.SetRequest) (*registryv1.SetResponse, error) {
	s.Operations.WithLabelValues("set").Inc()
	key, err := kv.KeyOf(ctx, req)
	if err != nil {
		return nil, err
	}
	cmd, err := s.Writer.Set(key, req)
	if err != nil {
		return nil, err
	}
	result, err := s.Commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return s.setResponse(result, key, req)
}

func (s *Service) setResponse(result *registryv1.CommandResult, key record.Key, req *registryv1.SetRequest) (*registryv1.SetResponse, error) {
	if err := kv.Outcome(result, key); err != nil {
		return nil, err
	}
	resp := &registryv1.SetResponse{Meta: s.WriteMeta(result.GetIndex())}
	for _, row := range result.GetWritten() {
		resp.Entry = kv.Entry(row)
		resp.Entry.Value = req.GetValue()
	}
	return resp, nil
}

// Delete removes one key, or all below a prefix.
func (s *Service) Delete(ctx context.Context, req *registryv1.DeleteRequest) (*registryv1.DeleteResponse, error) {
	s.Operations.WithLabelValues("delete").Inc()
	key, err := kv.KeyOf(ctx, req)
	if err != nil {
		return nil, err
	}
	cmd, err := s.Writer.Delete(key, req)
	if err != nil {
		return nil, err
	}
	rows := 0
	if req.GetRecurse() {
		if rows, err = s.below(key); err != nil {
			return nil, err
		}
	}
	result, err := s.Sweep(ctx, rows, cmd)
	if err != nil {
		return nil, err
	}
	resp, err := s.deleteResponse(result, key)
	for part := 1; err == nil && result.GetMore(); part++ {
		// A part of its own each, so that a call made again goes the same way.
		cmd.RequestId = fmt.Sprintf("%s#%d", req.GetRequestId(), part)
		if result, err = s.Sweep(ctx, api.ManyRows, cmd); err != nil {
			return nil, err
		}
		if err = kv.Outcome(result, key); err == nil {
			resp.Meta, resp.Deleted = s.WriteMeta(result.GetIndex()), resp.GetDeleted()+result.GetChanged()
		}
	}
	return resp, err
}

func (s *Service) deleteResponse(result *registryv1.CommandResult, key record.Key) (*registryv1.DeleteResponse, error) {
	if err := kv.Outcome(result, key); err != nil {
		return nil, err
	}
	return &registryv1.DeleteResponse{Meta: s.WriteMeta(result.GetIndex()), Deleted: result.GetChanged()}, nil
}

// below returns how many keys lie below a prefix here, or api.ManyRows.
func (s *Service) below(prefix record.Key) (n int, err error) {
	err = s.Store.View(func(r record.Reader) error {
		return r.Scan(registryv1.Table_TABLE_KV, record.ScanOptions{Prefix: prefix.In(prefix.Write()), KeysOnly: true}, func(*registryv1.Record) bool {
			n++
			return n < api.ManyRows
		})
	})
	return n, err
}

// narrow returns the scopes of a key that the call's token may read: a bare key means whichever it
// may.
func narrow(ctx context.Context, key record.Key) record.Key {
	a := acl.From(ctx)
	if key.Scope != registryv1.Scope_SCOPE_UNSPECIFIED || a.Management() {
		return key
	}
	may := func(scope registryv1.Scope) bool {
		return a.Allows(acl.Need{Resource: acl.KV, Name: key.In(scope), Access: acl.Read})
	}
	local, global := may(registryv1.Scope_SCOPE_LOCAL), may(registryv1.Scope_SCOPE_GLOBAL)
	switch {
	case local && !global:
		key.Scope = registryv1.Scope_SCOPE_LOCAL
	case global && !local:
		key.Scope = registryv1.Scope_SCOPE_GLOBAL
	}
	return key
}
