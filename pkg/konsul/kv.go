package konsul

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Scope reports whether a key belongs to one datacenter or to the federation.
type Scope string

// The scopes.
const (
	// ScopeAny lets the registry decide: reads look for a local key, then for a global one; writes
	// are local.
	ScopeAny    Scope = ""
	ScopeLocal  Scope = "local"
	ScopeGlobal Scope = "global"
)

// Entry is one key with its value.
type Entry struct {
	// Key without its scope.
	Key   string
	Value []byte
	Scope Scope
	// Flags are the caller's own, and so is Meta.
	Flags uint64
	Meta  map[string]string
	// Lease is the one with which the key ends; empty: it stays.
	Lease string
	// CreateIndex and ModifyIndex are the registry's indexes in Datacenter; ModifyIndex is what CAS
	// compares.
	CreateIndex, ModifyIndex uint64
	// Version counts the writes since the key was created, from 1.
	Version uint64
	// OriginDatacenter is where the value was written.
	OriginDatacenter string
	// ModifiedAt is when, by that datacenter's clock.
	ModifiedAt time.Time
	// Datacenter is the one that answered.
	Datacenter string
	// Index the answer reflects; a read with it as Index blocks until something newer.
	Index uint64
}

// KVClient reads and writes keys. A key may be written in full ("global/x", "local/x") or bare
// ("x").
type KVClient struct {
	api registryv1.KVServiceClient
	cfg Config
}

// GetOptions says how to read a key.
type GetOptions struct {
	// Global or Local force a scope; at most one of them.
	Global, Local bool
	// Datacenter to ask; empty: the client's.
	Datacenter string
	ReadMode   ReadMode
	// Index makes the read block until the key is newer, or Wait has passed (default 5m, at most
	// 10m).
	Index uint64
	Wait  time.Duration
	// AtIndex, if not 0, answers the state as of this index, inside the registry's retention
	// window.
	AtIndex uint64
}

// Get reads one key. NotFound when it exists in no permitted scope. opts may be nil.
func (c *KVClient) Get(ctx context.Context, key string, opts *GetOptions) (*Entry, error) {
	if opts == nil {
		opts = &GetOptions{}
	}
	scope, err := scopeOf(opts.Global, opts.Local)
	if err != nil {
		return nil, err
	}
	answer, err := c.api.Get(ctx, &registryv1.GetRequest{
		Key: key, Scope: scope, Datacenter: c.cfg.datacenter(opts.Datacenter), ReadMode: opts.ReadMode.proto(),
		Index: opts.Index, Wait: waitProto(opts.Wait), AtIndex: opts.AtIndex,
	})
	if err != nil {
		return nil, err
	}
	return entryFrom(answer.GetEntry(), answer.GetMeta().GetDatacenter(), answer.GetMeta().GetIndex()), nil
}

// SetOptions says how to write a key.
type SetOptions struct {
	// Global or Local force a scope; at most one of them. A global write is carried out by the
	// primary.
	Global, Local bool
	// Datacenter to write in; empty: the client's.
	Datacenter string
	// CAS, if not nil, lets the write happen only if the key's ModifyIndex is this; 0: only if the
	// key is absent.
	CAS *uint64
	// Flags and Meta are kept with the value.
	Flags uint64
	Meta  map[string]string
	// Lease, if not empty, is the one with which the key ends. Local keys only.
	Lease string
	// Fence, if not nil, lets the write happen only while the lock is held with the token. Local
	// keys only.
	Fence *Fence
}

// Fence names a lock and the token with which it must be held.
type Fence struct {
	Lock  string
	Token uint64
}

func (f *Fence) proto() *registryv1.Fence {
	if f == nil {
		return nil
	}
	return &registryv1.Fence{Lock: f.Lock, Token: f.Token}
}

// Set writes one key and returns it without its value. Aborted when CAS is given and the key moved
// on. opts may be nil.
func (c *KVClient) Set(ctx context.Context, key string, value []byte, opts *SetOptions) (*Entry, error) {
	if opts == nil {
		opts = &SetOptions{}
	}
	scope, err := scopeOf(opts.Global, opts.Local)
	if err != nil {
		return nil, err
	}
	answer, err := c.api.Set(ctx, &registryv1.SetRequest{
		Key: key, Value: value, Scope: scope, Datacenter: c.cfg.datacenter(opts.Datacenter),
		Cas: opts.CAS, Flags: opts.Flags, Meta: opts.Meta, Lease: opts.Lease, Fence: opts.Fence.proto(), RequestId: requestID(ctx),
	})
	if err != nil {
		return nil, err
	}
	return entryFrom(answer.GetEntry(), answer.GetMeta().GetDatacenter(), answer.GetMeta().GetIndex()), nil
}

// DeleteOptions says what to delete.
type DeleteOptions struct {
	Global, Local bool
	Datacenter    string
	// CAS, if not nil, lets the deletion happen only if the key's ModifyIndex is this.
	CAS *uint64
	// Recurse deletes every key that begins with the key.
	Recurse bool
	// Fence, if not nil, lets the deletion happen only while the lock is held with the token.
	Fence *Fence
}

// Delete removes one key, or all below a prefix, and returns how many. Deleting what is not there
// is no error. Aborted when CAS is given and the key moved on. opts may be nil.
func (c *KVClient) Delete(ctx context.Context, key string, opts *DeleteOptions) (uint64, error) {
	if opts == nil {
		opts = &DeleteOptions{}
	}
	scope, err := scopeOf(opts.Global, opts.Local)
	if err != nil {
		return 0, err
	}
	answer, err := c.api.Delete(ctx, &registryv1.DeleteRequest{
		Key: key, Scope: scope, Datacenter: c.cfg.datacenter(opts.Datacenter),
		Cas: opts.CAS, Recurse: opts.Recurse, Fence: opts.Fence.proto(), RequestId: requestID(ctx),
	})
	if err != nil {
		return 0, err
	}
	return answer.GetDeleted(), nil
}

// ListKeysOptions says which keys to list.
type ListKeysOptions struct {
	Global, Local bool
	Datacenter    string
	ReadMode      ReadMode
	// KeysOnly leaves values out.
	KeysOnly bool
	// Separator, if not empty, shows what lies behind the next one after the prefix as one folder.
	Separator string
	// Index makes the read block until something below the prefix is newer, or Wait has passed.
	Index uint64
	Wait  time.Duration
	// AtIndex, if not 0, answers the state as of this index, inside the registry's retention
	// window.
	AtIndex uint64
}

// EntryList is what List answers.
type EntryList struct {
	// Entries in key order.
	Entries []*Entry
	// Folders, with a Separator, are what keys have in common up to and including it.
	Folders []string
	// Datacenter is the one that answered.
	Datacenter string
	// Index the first page reflects; pass it as Index to wait for something newer.
	Index uint64
}

// List returns all entries below a prefix; "" is every key. Large answers come in pages, which List
// puts together; keys written meanwhile may or may not be among them. opts may be nil.
func (c *KVClient) List(ctx context.Context, prefix string, opts *ListKeysOptions) (*EntryList, error) {
	if opts == nil {
		opts = &ListKeysOptions{}
	}
	scope, err := scopeOf(opts.Global, opts.Local)
	if err != nil {
		return nil, err
	}
	request := &registryv1.ListRequest{
		Prefix: prefix, Scope: scope, Datacenter: c.cfg.datacenter(opts.Datacenter), ReadMode: opts.ReadMode.proto(),
		KeysOnly: opts.KeysOnly, Separator: opts.Separator, Index: opts.Index, Wait: waitProto(opts.Wait), AtIndex: opts.AtIndex,
	}
	list := &EntryList{}
	for first := true; ; first = false {
		page, err := c.api.List(ctx, request)
		if err != nil {
			return nil, err
		}
		if first {
			list.Datacenter, list.Index = page.GetMeta().GetDatacenter(), page.GetMeta().GetIndex()
		}
		for _, e := range page.GetEntries() {
			list.Entries = append(list.Entries, entryFrom(e, page.GetMeta().GetDatacenter(), page.GetMeta().GetIndex()))
		}
		list.Folders = append(list.Folders, page.GetFolders()...)
		if page.GetNextPageToken() == "" {
			return list, nil
		}
		// Only the first page waits.
		request.PageToken, request.Index, request.Wait = page.GetNextPageToken(), 0, nil
	}
}

func entryFrom(e *registryv1.Entry, datacenter string, index uint64) *Entry {
	entry := &Entry{
		Key: e.GetKey(), Value: e.GetValue(), Flags: e.GetFlags(), Meta: e.GetMeta(), Lease: e.GetLease(),
		CreateIndex: e.GetCreateIndex(), ModifyIndex: e.GetModifyIndex(), Version: e.GetVersion(),
		OriginDatacenter: e.GetOriginDatacenter(), Datacenter: datacenter, Index: index,
	}
	switch e.GetScope() {
	case registryv1.Scope_SCOPE_GLOBAL:
		entry.Scope = ScopeGlobal
	case registryv1.Scope_SCOPE_LOCAL:
		entry.Scope = ScopeLocal
	}
	if e.GetModifiedAt() != nil {
		entry.ModifiedAt = e.GetModifiedAt().AsTime()
	}
	return entry
}

func scopeOf(global, local bool) (registryv1.Scope, error) {
	switch {
	case global && local:
		return registryv1.Scope_SCOPE_UNSPECIFIED, invalid("Global", "cannot be set together with Local")
	case global:
		return registryv1.Scope_SCOPE_GLOBAL, nil
	case local:
		return registryv1.Scope_SCOPE_LOCAL, nil
	default:
		return registryv1.Scope_SCOPE_UNSPECIFIED, nil
	}
}

func waitProto(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}
