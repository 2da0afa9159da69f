package fsm

import (
	"bytes"
	"cmp"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// holds reports whether a condition holds of a row.
func (a *application) holds(c *registryv1.Condition, row *registryv1.Record) (bool, error) {
	comparison := c.GetComparison()
	if comparison == nil {
		return record.ModifyIndex(row) == c.GetModifyIndex(), nil
	}
	live := record.Live(row)
	if !live {
		row = nil // A tombstone's indexes are nobody's business.
	}
	switch with := comparison.GetWith().(type) {
	case *registryv1.Comparison_ModifyIndex:
		return relates(comparison, cmp.Compare(row.GetModifyIndex(), with.ModifyIndex)), nil
	case *registryv1.Comparison_CreateIndex:
		return relates(comparison, cmp.Compare(row.GetCreateIndex(), with.CreateIndex)), nil
	case *registryv1.Comparison_Version:
		return relates(comparison, cmp.Compare(row.GetVersion(), with.Version)), nil
	case *registryv1.Comparison_Value:
		return live && relates(comparison, bytes.Compare(row.GetValue(), with.Value)), nil
	case *registryv1.Comparison_Exists:
		return live == with.Exists, nil
	case *registryv1.Comparison_HeldWith:
		lock, err := DecodeLock(row)
		return live && lock.GetLease() != "" && lock.GetToken() == with.HeldWith, err
	case *registryv1.Comparison_FreeFor:
		lock, err := DecodeLock(row)
		return !live || free(lock, with.FreeFor, a.cmd.GetTime().AsTime()), err
	}
	return false, ErrUnknownCommand
}

// relates reports whether an order is the one that a comparison asks for.
func relates(c *registryv1.Comparison, order int) bool {
	switch c.GetOperator() {
	case registryv1.Comparison_OPERATOR_NOT_EQUAL:
		return order != 0
	case registryv1.Comparison_OPERATOR_LESS:
		return order < 0
	case registryv1.Comparison_OPERATOR_GREATER:
		return order > 0
	default:
		return order == 0
	}
}

func knownComparison(c *registryv1.Comparison) bool {
	if c == nil {
		return true
	}
	_, known := registryv1.Comparison_Operator_name[int32(c.GetOperator())]
	return known && c.GetWith() != nil && len(c.ProtoReflect().GetUnknown()) == 0
}
