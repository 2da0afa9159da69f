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

// pairs are two keys that are written together or not at all, by transactions that compare both. The first stands for the
// pair in the history; the other one, hidden from the watches, must always be its twin.
const pairs = 2

// twin goes before the name of the second key; watches do not follow what begins with it.
const twin = "twin/"

func (c *caller) pair() string {
	return fmt.Sprintf("kpair%d-%d", int(c.recorder.Now()/keyLife), c.chance.IntN(pairs))
}

// setPair writes both keys of a pair if neither has moved since this client knew of them.
func (c *caller) setPair(ctx context.Context, key string) {
	c.count++
	index := c.read[key]
	o := history.Operation{Client: c.number, Kind: history.Set, Key: key, Txn: uuid.NewString(), Value: fmt.Sprintf("%d.%d", c.number, c.count), CAS: &index, Call: c.recorder.Now()}
	req := &registryv1.TxnRequest{RequestId: o.Txn}
	for _, name := range []string{key, twin + key} {
		req.Compare = append(req.Compare, &registryv1.Compare{Key: "local/" + name, With: &registryv1.Compare_ModifyIndex{ModifyIndex: index}})
		req.Success = append(req.Success, &registryv1.TxnOperation{Operation: &registryv1.TxnOperation_Set{Set: &registryv1.TxnSet{Key: "local/" + name, Value: pad(o.Value)}}})
	}
	lost := false
	c.write(ctx, &o, func(ctx context.Context, kv registryv1.KVServiceClient) error {
		resp, err := kv.Txn(ctx, req)
		switch {
		case err != nil:
			return err
		case !resp.GetSucceeded():
			lost = true
			return errConflict
		}
		o.Modify = resp.GetMeta().GetIndex()
		for _, r := range resp.GetResults() {
			if r.GetEntry().GetModifyIndex() != o.Modify {
				return fmt.Errorf("a key of the transaction at %d was written at %d", o.Modify, r.GetEntry().GetModifyIndex())
			}
		}
		return nil
	})
	if lost {
		c.getPair(ctx, c.place(), key)
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
	c.read[key] = o.Modify
	c.recorder.Done(o)
}
