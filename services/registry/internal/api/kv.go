package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
)

type kvService struct {
	registryv1.UnimplementedKVServiceServer
	*Core
}

// Get reads one key.
func (s *kvService) Get(ctx context.Context, req *registryv1.GetRequest) (*registryv1.GetResponse, error) {
	s.Metrics.kv("get")
	key, err := kv.KeyOf(ctx, req)
	if err != nil {
		return nil, err
	}
	key = narrow(ctx, key)
	var entry *registryv1.Entry
	var index, changed uint64
	read := func() error {
		return s.view(ctx, req, func(r record.Reader) (err error) {
			entry, changed, err = kv.Get(r, key)
			index = r.Index()
			return err
		})
	}
	if req.GetIndex() > 0 { // Most reads do not wait, and need not say for what.
		err = s.block(ctx, req, kv.Filters(key, true), func(uint64) (uint64, error) {
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
		return nil, withIndex(kv.NotFound(key), index)
	}
	return &registryv1.GetResponse{Entry: entry, Meta: s.MetaOf(entry.GetScope() == registryv1.Scope_SCOPE_GLOBAL, index)}, nil
}

// withIndex lets a caller block on what is not there.
func withIndex(err error, index uint64) error {
	if f, ok := fault.As(err); ok {
		return f.WithMeta("index", strconv.FormatUint(index, 10))
	}
	return err
}

// List answers the entries below a prefix.
func (s *kvService) List(ctx context.Context, req *registryv1.ListRequest) (*registryv1.ListResponse, error) {
	s.Metrics.kv("list")
	prefix, err := record.ParsePrefix(req.GetPrefix(), req.GetScope())
	if err != nil {
		return nil, err
	}
	err = s.block(ctx, req, kv.Filters(prefix, false), func(since uint64) (changed uint64, err error) {
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
	err = s.view(ctx, req, func(r record.Reader) error {
		page, err := kv.List(r, prefix, kv.ListOptions{
			KeysOnly: req.GetKeysOnly(), Limit: req.GetLimit(), PageToken: req.GetPageToken(), Separator: req.GetSeparator(), Sees: sees(ctx, acl.KV, access, &filtered),
		})
		resp.Entries, resp.Folders, resp.NextPageToken = page.Entries, page.Folders, page.Next
		resp.Meta = s.MetaOf(slices.Contains(prefix.Read(), registryv1.Scope_SCOPE_GLOBAL), r.Index())
		resp.Meta.ResultsFiltered = filtered
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// Set writes one key.
func (s *kvService) Set(ctx context.Context, req *registryv1.SetRequest) (*registryv1.SetResponse, error) {
	s.Metrics.kv("set")
	key, err := kv.KeyOf(ctx, req)
	if err != nil {
		return nil, err
	}
	cmd, err := s.KV.Set(key, req)
	if err != nil {
		return nil, err
	}
	result, err := s.Commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return s.setResponse(result, key, req)
}

func (s *kvService) setResponse(result *registryv1.CommandResult, key record.Key, req *registryv1.SetRequest) (*registryv1.SetResponse, error) {
	if err := kv.Outcome(result, key); err != nil {
		return nil, err
	}
	resp := &registryv1.SetResponse{Meta: s.writeMeta(result.GetIndex())}
	for _, row := range result.GetWritten() {
		resp.Entry = kv.Entry(row)
		resp.Entry.Value = req.GetValue()
	}
	return resp, nil
}

// Delete removes one key, or all below a prefix.
func (s *kvService) Delete(ctx context.Context, req *registryv1.DeleteRequest) (*registryv1.DeleteResponse, error) {
	s.Metrics.kv("delete")
	key, err := kv.KeyOf(ctx, req)
	if err != nil {
		return nil, err
	}
	cmd, err := s.KV.Delete(key, req)
	if err != nil {
		return nil, err
	}
	rows := 0
	if req.GetRecurse() {
		if rows, err = s.below(key); err != nil {
			return nil, err
		}
	}
	result, err := s.sweep(ctx, rows, cmd)
	if err != nil {
		return nil, err
	}
	resp, err := s.deleteResponse(result, key)
	for part := 1; err == nil && result.GetMore(); part++ {
		// A part of its own each, so that a call made again goes the same way.
		cmd.RequestId = fmt.Sprintf("%s#%d", req.GetRequestId(), part)
		if result, err = s.sweep(ctx, manyRows, cmd); err != nil {
			return nil, err
		}
		if err = kv.Outcome(result, key); err == nil {
			resp.Meta, resp.Deleted = s.writeMeta(result.GetIndex()), resp.GetDeleted()+result.GetChanged()
		}
	}
	return resp, err
}

func (s *kvService) deleteResponse(result *registryv1.CommandResult, key record.Key) (*registryv1.DeleteResponse, error) {
	if err := kv.Outcome(result, key); err != nil {
		return nil, err
	}
	return &registryv1.DeleteResponse{Meta: s.writeMeta(result.GetIndex()), Deleted: result.GetChanged()}, nil
}

// manyRows is how many rows make a deletion one of many, which takes turns with others of the kind.
const manyRows = 100

// below returns how many keys lie below a prefix here, or manyRows.
func (s *kvService) below(prefix record.Key) (n int, err error) {
	err = s.Store.View(func(r record.Reader) error {
		return r.Scan(registryv1.Table_TABLE_KV, record.ScanOptions{Prefix: prefix.In(prefix.Write()), KeysOnly: true}, func(*registryv1.Record) bool {
			n++
			return n < manyRows
		})
	})
	return n, err
}

// sweep is commit for commands that delete about so many rows.
func (c *Core) sweep(ctx context.Context, rows int, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	if rows >= manyRows {
		select {
		case c.Sweeping <- struct{}{}:
			defer func() { <-c.Sweeping }()
		case <-c.Draining:
			return nil, c.draining()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return c.Commit(ctx, cmd)
}

// Commit is Propose for commands that carry a caller's request id.
func (c *Core) Commit(ctx context.Context, cmd *registryv1.Command) (*registryv1.CommandResult, error) {
	if err := checkRequestID(cmd.GetRequestId()); err != nil {
		return nil, err
	}
	return c.Propose(ctx, cmd)
}
