package fsm

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// RequestRetention is how long the outcome of a request id is remembered, by the leaders' clocks.
const RequestRetention = 10 * time.Minute

// Outcomes are forgotten by a hand that moves over the table of requests, like a clock's: every
// sweepEvery indexes it looks at sweepRows rows and drops the old ones. Both are part of the state
// machine's meaning: servers of one cluster must agree on them.
const (
	sweepEvery = 256
	sweepRows  = 512
	// handKey holds the hand's position. No request id begins with a zero byte.
	handKey = "\x00hand"
)

// recall answers the outcome of a request that was applied before.
func recall(tx Tx, cmd *registryv1.Command) (*registryv1.CommandResult, bool, error) {
	if cmd.GetRequestId() == "" {
		return nil, false, nil
	}
	row, err := tx.Get(registryv1.Table_TABLE_REQUEST, cmd.GetRequestId())
	if err != nil || !record.Live(row) {
		return nil, false, err
	}
	result := &registryv1.CommandResult{}
	if err := proto.Unmarshal(row.GetValue(), result); err != nil {
		return nil, false, fmt.Errorf("decode the outcome of request %q: %w", cmd.GetRequestId(), err)
	}
	return result, true, nil
}

func remember(tx Tx, index uint64, cmd *registryv1.Command, result *registryv1.CommandResult) error {
	if cmd.GetRequestId() == "" {
		return nil
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode the outcome of request %q: %w", cmd.GetRequestId(), err)
	}
	return tx.Put(&registryv1.Record{
		Table: registryv1.Table_TABLE_REQUEST, Key: cmd.GetRequestId(), Value: value,
		CreateIndex: index, ModifyIndex: index, Version: 1, OriginTime: cmd.GetTime(),
	})
}

// sweep forgets old outcomes.
func sweep(tx Tx, index uint64, cmd *registryv1.Command) error {
	if index%sweepEvery != 0 {
		return nil
	}
	hand, err := tx.Get(registryv1.Table_TABLE_REQUEST, handKey)
	if err != nil {
		return err
	}
	horizon := cmd.GetTime().AsTime().Add(-RequestRetention)
	var old []string
	seen, next := 0, ""
	options := record.ScanOptions{From: max(string(hand.GetValue()), handKey+"\x00"), KeysOnly: true}
	err = tx.Scan(registryv1.Table_TABLE_REQUEST, options, func(r *registryv1.Record) bool {
		if seen == sweepRows {
			next = r.GetKey()
			return false
		}
		seen++
		if r.GetOriginTime().AsTime().Before(horizon) {
			old = append(old, r.GetKey())
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, key := range old {
		if err := tx.Drop(registryv1.Table_TABLE_REQUEST, key); err != nil {
			return err
		}
	}
	return tx.Put(&registryv1.Record{
		Table: registryv1.Table_TABLE_REQUEST, Key: handKey, Value: []byte(next),
		CreateIndex: index, ModifyIndex: index, Version: 1, OriginTime: cmd.GetTime(),
	})
}
