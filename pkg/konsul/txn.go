package konsul

import (
	"context"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Txn is a transaction: all of Then is carried out if every comparison of If holds, else all of
// Else, in one commit. Keys are bare or in full; all that are written are of one scope.
type Txn struct {
	If         []Compare
	Then, Else []Op
	// Global makes bare keys global; they are local otherwise. The primary carries out what writes
	// global keys.
	Global bool
	// Datacenter to carry it out in; empty: the client's.
	Datacenter string
}

// Operator is how a key's own relates to what it is compared with.
type Operator string

// The operators.
const (
	Equal    Operator = "="
	NotEqual Operator = "!="
	Less     Operator = "<"
	Greater  Operator = ">"
)

// Compare is one comparison. Make it with the functions below.
type Compare struct{ proto *registryv1.Compare }

// Op is one operation. Make it with the functions below.
type Op struct{ proto *registryv1.TxnOperation }

func relation(key string, o Operator) *registryv1.Compare {
	operators := map[Operator]registryv1.Compare_Operator{
		Equal: registryv1.Compare_OPERATOR_EQUAL, NotEqual: registryv1.Compare_OPERATOR_NOT_EQUAL,
		Less: registryv1.Compare_OPERATOR_LESS, Greater: registryv1.Compare_OPERATOR_GREATER,
	}
	operator, known := operators[o]
	if !known {
		operator = -1 // The registry says what is wrong with it.
	}
	return &registryv1.Compare{Key: key, Operator: operator}
}

// KeyExists holds if the key has a value.
func KeyExists(key string) Compare {
	return Compare{&registryv1.Compare{Key: key, With: &registryv1.Compare_Exists{Exists: true}}}
}

// KeyAbsent holds if the key has no value.
func KeyAbsent(key string) Compare {
	return Compare{&registryv1.Compare{Key: key, With: &registryv1.Compare_Exists{Exists: false}}}
}

// KeyValue compares the key's value; it never holds for an absent key.
func KeyValue(key string, o Operator, value []byte) Compare {
	c := relation(key, o)
	c.With = &registryv1.Compare_Value{Value: value}
	return Compare{c}
}

// KeyVersion compares how often the key has been written; 0 for an absent key.
func KeyVersion(key string, o Operator, version uint64) Compare {
	c := relation(key, o)
	c.With = &registryv1.Compare_Version{Version: version}
	return Compare{c}
}

// KeyIndex compares the key's ModifyIndex; 0 for an absent key.
func KeyIndex(key string, o Operator, index uint64) Compare {
	c := relation(key, o)
	c.With = &registryv1.Compare_ModifyIndex{ModifyIndex: index}
	return Compare{c}
}

// KeyCreated compares the key's CreateIndex; 0 for an absent key.
func KeyCreated(key string, o Operator, index uint64) Compare {
	c := relation(key, o)
	c.With = &registryv1.Compare_CreateIndex{CreateIndex: index}
	return Compare{c}
}

// LockHeld holds if the lock is held with the token.
func LockHeld(f Fence) Compare {
	return Compare{&registryv1.Compare{With: &registryv1.Compare_Held{Held: f.proto()}}}
}

// OpGet reads a key as the operations before it leave it.
func OpGet(key string) Op {
	return Op{&registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Get{Get: &registryv1.TxnGet{Key: key}}}}
}

// OpSet writes a key. Of opts it takes Flags, Meta and Lease; opts may be nil.
func OpSet(key string, value []byte, opts *SetOptions) Op {
	if opts == nil {
		opts = &SetOptions{}
	}
	return Op{&registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{
		Key: key, Value: value, Flags: opts.Flags, Meta: opts.Meta, Lease: opts.Lease,
	}}}}
}

// OpDelete deletes a key.
func OpDelete(key string) Op {
	return Op{&registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Delete{Delete: &registryv1.TxnDelete{Key: key}}}}
}

// OpDeletePrefix deletes every key that begins with prefix; ten thousand at most.
func OpDeletePrefix(prefix string) Op {
	return Op{&registryv1.TxnOperation{Operation: &registryv1.TxnOperation_DeletePrefix{DeletePrefix: &registryv1.TxnDelete{Key: prefix}}}}
}

// TxnResult is what a transaction did.
type TxnResult struct {
	// Succeeded says that every comparison held.
	Succeeded bool
	// Results has one for each operation carried out.
	Results []OpResult
	// Datacenter carried it out, at Index.
	Datacenter string
	Index      uint64
}

// OpResult is what one operation did.
type OpResult struct {
	// Entry is what was read, nil when the key has no value, or as it was written, without its
	// value.
	Entry *Entry
	// Deleted counts the keys that were deleted.
	Deleted uint64
}

// Txn carries out a transaction. That a comparison does not hold is no error.
func (c *KVClient) Txn(ctx context.Context, txn Txn) (*TxnResult, error) {
	request := &registryv1.TxnRequest{Datacenter: c.cfg.datacenter(txn.Datacenter), RequestId: requestID(ctx)}
	if txn.Global {
		request.Scope = registryv1.Scope_SCOPE_GLOBAL
	}
	for _, c := range txn.If {
		request.Compare = append(request.Compare, c.proto)
	}
	for _, op := range txn.Then {
		request.Success = append(request.Success, op.proto)
	}
	for _, op := range txn.Else {
		request.Failure = append(request.Failure, op.proto)
	}
	answer, err := c.api.Txn(ctx, request)
	if err != nil {
		return nil, err
	}
	meta := answer.GetMeta()
	result := &TxnResult{Succeeded: answer.GetSucceeded(), Datacenter: meta.GetDatacenter(), Index: meta.GetIndex()}
	for _, r := range answer.GetResults() {
		one := OpResult{Deleted: r.GetDeleted()}
		if r.GetEntry() != nil {
			one.Entry = entryFrom(r.GetEntry(), meta.GetDatacenter(), meta.GetIndex())
		}
		result.Results = append(result.Results, one)
	}
	return result, nil
}

// HistoryOptions says which versions to read.
type HistoryOptions struct {
	Global, Local bool
	Datacenter    string
	ReadMode      ReadMode
	// Limit is how many versions to answer at most (default 100, at most 1,000).
	Limit uint32
	// Before leaves out versions of this index and later.
	Before uint64
}

// Version is a key as it once was.
type Version struct {
	Entry
	// Deleted says that the key was deleted then.
	Deleted bool
}

// History returns the versions of a key that the registry still knows, the newest first. opts may
// be nil.
func (c *KVClient) History(ctx context.Context, key string, opts *HistoryOptions) ([]Version, error) {
	if opts == nil {
		opts = &HistoryOptions{}
	}
	scope, err := scopeOf(opts.Global, opts.Local)
	if err != nil {
		return nil, err
	}
	answer, err := c.api.History(ctx, &registryv1.HistoryRequest{
		Key: key, Scope: scope, Datacenter: c.cfg.datacenter(opts.Datacenter), ReadMode: opts.ReadMode.proto(), Limit: opts.Limit, Before: opts.Before,
	})
	if err != nil {
		return nil, err
	}
	var versions []Version
	for _, v := range answer.GetVersions() {
		e := entryFrom(v.GetEntry(), answer.GetMeta().GetDatacenter(), answer.GetMeta().GetIndex())
		versions = append(versions, Version{Entry: *e, Deleted: v.GetDeleted()})
	}
	return versions, nil
}
