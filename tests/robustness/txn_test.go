package robustness_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/robustness/arena"
	"konsul.dev/tests/robustness/history"
)

// pairs are two keys that are written or deleted together or not at all, by transactions that
// compare both. The first stands for the pair in the history; the other one, hidden from the
// watches, must always be its twin.
const pairs = 2

// twin goes before the name of the second key; watches do not follow what begins with it.
const twin = "twin/"

func (c *caller) pair() string {
	return fmt.Sprintf("kpair%d-%d", int(c.recorder.Now()/keyLife), c.chance.IntN(pairs))
}

// setPair writes both keys of a pair if neither has moved since this client knew of them.
func (c *caller) setPair(ctx context.Context, key string) {
	c.count++
	o := history.Operation{Client: c.number, Kind: history.Set, Key: key, Value: fmt.Sprintf("%d.%d", c.number, c.count)}
	c.changePair(ctx, &o, func(name string) *registryv1.TxnOperation {
		return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{Key: name, Value: pad(o.Value)}}}
	})
}

// removePair deletes both keys of a pair if neither has moved since this client knew of them.
func (c *caller) removePair(ctx context.Context, key string) {
	c.changePair(ctx, &history.Operation{Client: c.number, Kind: history.Delete, Key: key}, func(name string) *registryv1.TxnOperation {
		return &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Delete{Delete: &registryv1.TxnDelete{Key: name}}}
	})
}

func (c *caller) changePair(ctx context.Context, o *history.Operation, change func(name string) *registryv1.TxnOperation) {
	index := c.read[o.Key]
	o.Txn, o.CAS, o.Call = uuid.NewString(), &index, c.recorder.Now()
	req := &registryv1.TxnRequest{RequestId: o.Txn}
	for _, name := range []string{o.Key, twin + o.Key} {
		req.Compare = append(req.Compare, c.unchanged(o.Key, "local/"+name))
		req.Success = append(req.Success, change("local/"+name))
	}
	lost := false
	c.write(ctx, o, func(ctx context.Context, to *arena.Client) error {
		resp, err := to.KV.Txn(ctx, req)
		switch {
		case err != nil:
			return err
		case !resp.GetSucceeded():
			lost = true
			return errConflict
		case o.Kind == history.Delete && index == 0:
			return nil // There was nothing to delete.
		}
		o.Modify = resp.GetMeta().GetIndex()
		for _, r := range resp.GetResults() {
			if o.Kind == history.Set && r.GetEntry().GetModifyIndex() != o.Modify {
				return fmt.Errorf("a key of the transaction at %d was written at %d", o.Modify, r.GetEntry().GetModifyIndex())
			}
		}
		return nil
	})
	switch {
	case lost:
		c.getPair(ctx, c.place(), o.Key)
	case o.Fate == history.OK && o.Kind == history.Delete:
		c.know(o.Key, 0, "")
	case o.Fate == history.OK:
		c.know(o.Key, o.Modify, o.Value)
	}
}

// unchanged holds while a key is what this client knows its pair to be. There are several ways to
// say so.
func (c *caller) unchanged(pair, name string) *registryv1.Compare {
	index := c.read[pair]
	value, known := c.values[pair]
	switch other := c.chance.IntN(2) == 0; {
	case other && index == 0:
		return &registryv1.Compare{Key: name, With: &registryv1.Compare_Exists{Exists: false}}
	case other && known:
		return &registryv1.Compare{Key: name, With: &registryv1.Compare_Value{Value: pad(value)}}
	}
	return &registryv1.Compare{Key: name, With: &registryv1.Compare_ModifyIndex{ModifyIndex: index}}
}

// know notes what a pair is.
func (c *caller) know(key string, index uint64, value string) {
	c.read[key] = index
	delete(c.values, key)
	if index > 0 {
		c.values[key] = value
	}
}

// errConflict is a transaction whose comparison did not hold.
var errConflict = errors.New("the comparison did not hold")

// getPair reads both keys in one transaction, which is as good as a linearizable read.
func (c *caller) getPair(ctx context.Context, place int, key string) {
	o := history.Operation{Client: c.number, Kind: history.Get, Mode: history.Linearizable, Key: key, Txn: uuid.NewString(), Call: c.recorder.Now()}
	req := &registryv1.TxnRequest{RequestId: o.Txn}
	for _, name := range []string{key, twin + key} {
		req.Success = append(req.Success, &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Get{Get: &registryv1.TxnGet{Key: "local/" + name}}})
	}
	ctx, cancel := context.WithTimeout(arena.Authorize(ctx), callLimit)
	defer cancel()
	resp, err := c.cluster.Client(place).KV.Txn(ctx, req)
	if err != nil {
		o.Fate, o.Why = history.Refused, err.Error()
		c.recorder.Done(o)
		return
	}
	first, second := resp.GetResults()[0].GetEntry(), resp.GetResults()[1].GetEntry()
	o.Fate, o.Index = history.OK, resp.GetMeta().GetIndex()
	o.Found, o.Value, o.Modify = first != nil, bare(first.GetValue()), first.GetModifyIndex()
	o.Twin = &history.Twin{Found: second != nil, Value: bare(second.GetValue()), Modify: second.GetModifyIndex()}
	c.know(key, o.Modify, o.Value)
	c.recorder.Done(o)
}
