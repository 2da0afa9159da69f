package kv

import (
	"fmt"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// reasonCompared marks the conditions whose failure is an answer of the transaction.
const reasonCompared = "COMPARED"

// maxTxnAnswer bounds the values that a transaction reads: they are remembered for a retry.
const maxTxnAnswer = 1 << 20

// ReasonMixedScopes says that a transaction would have to be carried out in two datacenters.
const ReasonMixedScopes = "MIXED_SCOPES"

// TxnKey returns what a key of a transaction means: a bare one is of the transaction's scope.
func TxnKey(scope registryv1.Scope, field, name string) (record.Key, error) {
	key, err := record.ParseKey(name, registryv1.Scope_SCOPE_UNSPECIFIED)
	if f, ok := fault.As(err); ok {
		return key, f.WithField(field)
	}
	if key.Scope == registryv1.Scope_SCOPE_UNSPECIFIED {
		key.Scope = record.Key{Scope: scope}.Write()
	}
	return key, nil
}

// TxnGlobal reports whether a transaction writes a global key: then it belongs to the primary.
func TxnGlobal(req *registryv1.TxnRequest) bool {
	for _, operations := range [][]*registryv1.TxnOperation{req.GetSuccess(), req.GetFailure()} {
		for _, op := range operations {
			_, name, writes := target(op)
			if key, err := TxnKey(req.GetScope(), "", name); err == nil && writes && key.Scope == registryv1.Scope_SCOPE_GLOBAL {
				return true
			}
		}
	}
	return false
}

// target returns which field of an operation names which key, and whether it writes.
func target(op *registryv1.TxnOperation) (field, key string, writes bool) {
	switch op := op.GetOperation().(type) {
	case *registryv1.TxnOperation_Get:
		return "get.key", op.Get.GetKey(), false
	case *registryv1.TxnOperation_Set:
		return "set.key", op.Set.GetKey(), true
	case *registryv1.TxnOperation_Delete:
		return "delete.key", op.Delete.GetKey(), true
	case *registryv1.TxnOperation_DeletePrefix:
		return "delete_prefix.key", op.DeletePrefix.GetKey(), true
	}
	return "", "", false
}

// txn is a transaction on its way to become a command.
type txn struct {
	Writer
	req    *registryv1.TxnRequest
	cmd    *registryv1.Command
	global bool
}

// Txn returns the command of a transaction.
func (w Writer) Txn(req *registryv1.TxnRequest) (*registryv1.Command, error) {
	if _, known := registryv1.Scope_name[int32(req.GetScope())]; !known {
		return nil, fault.Invalid("scope", "%d is no scope", req.GetScope()).WithRemedy("use local or global, or leave it out")
	}
	operations := len(req.GetSuccess()) + len(req.GetFailure())
	if operations == 0 {
		return nil, fault.Invalid("success", "is empty, and so is failure: there is nothing to carry out").
			WithRemedy("give at least one operation")
	}
	if n := len(req.GetCompare()) + operations; n > w.MaxOperations {
		return nil, fault.Invalid("success", "makes %d comparisons and operations with the rest; %d of both at most are allowed", n, w.MaxOperations).
			WithRemedy("make several transactions of it, or raise registry.max_txn_operations")
	}
	t := txn{
		Writer: w, req: req, global: TxnGlobal(req),
		cmd: &registryv1.Command{RequestId: req.GetRequestId(), Detailed: true, MaxAnswerBytes: maxTxnAnswer},
	}
	for i, c := range req.GetCompare() {
		condition, err := t.compare(fmt.Sprintf("compare[%d]", i), c)
		if err != nil {
			return nil, err
		}
		t.cmd.Conditions = append(t.cmd.Conditions, condition)
	}
	var err error
	if t.cmd.Operations, err = t.operations("success", req.GetSuccess()); err != nil {
		return nil, err
	}
	t.cmd.Otherwise, err = t.operations("failure", req.GetFailure())
	return t.cmd, err
}

// key reads a key and sees to it that whoever carries out the transaction has it.
func (t *txn) key(field, name string) (record.Key, error) {
	key, err := TxnKey(t.req.GetScope(), field, name)
	if err != nil {
		return key, err
	}
	if t.global && key.Scope != registryv1.Scope_SCOPE_GLOBAL {
		return key, fault.New(fault.InvalidArgument, ReasonMixedScopes, "is local, and the transaction writes global keys, which only the primary does").
			WithField(field).WithRemedy("make two transactions of it, or write global/ in front of the key")
	}
	return key, nil
}

func (t *txn) operations(branch string, operations []*registryv1.TxnOperation) ([]*registryv1.Operation, error) {
	out := make([]*registryv1.Operation, len(operations))
	for i, op := range operations {
		var err error
		if out[i], err = t.operation(fmt.Sprintf("%s[%d]", branch, i), op); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (t *txn) operation(at string, op *registryv1.TxnOperation) (*registryv1.Operation, error) {
	field, name, _ := target(op)
	if field == "" {
		return nil, fault.Invalid(at, "is none of get, set, delete and delete_prefix")
	}
	key, err := t.key(at+"."+field, name)
	if err != nil {
		return nil, err
	}
	row := &registryv1.RecordKey{Table: table, Key: key.In(key.Scope)}
	switch op := op.GetOperation().(type) {
	case *registryv1.TxnOperation_Set:
		put, takes, err := t.put(key, op.Set)
		if f, ok := fault.As(err); ok {
			return nil, f.WithField(at + ".set." + f.Field())
		}
		t.cmd.Conditions = append(t.cmd.Conditions, takes...) // Of either branch: a lease that has ended fails the transaction.
		return put, err
	case *registryv1.TxnOperation_Delete:
		return &registryv1.Operation{Op: &registryv1.Operation_Delete{Delete: row}}, nil
	case *registryv1.TxnOperation_DeletePrefix:
		t.cmd.MaxDeleted = deletedAtOnce // A hundred prefixes of so many keys would hold up everybody, too.
		return deleteBelow(row, false), nil
	default:
		return &registryv1.Operation{Op: &registryv1.Operation_Get{Get: row}}, nil
	}
}

func (t *txn) compare(at string, c *registryv1.Compare) (*registryv1.Condition, error) {
	with := &registryv1.Comparison{}
	onlyEqual := false
	switch given := c.GetWith().(type) {
	case *registryv1.Compare_ModifyIndex:
		with.With = &registryv1.Comparison_ModifyIndex{ModifyIndex: given.ModifyIndex}
	case *registryv1.Compare_CreateIndex:
		with.With = &registryv1.Comparison_CreateIndex{CreateIndex: given.CreateIndex}
	case *registryv1.Compare_Version:
		with.With = &registryv1.Comparison_Version{Version: given.Version}
	case *registryv1.Compare_Value:
		with.With = &registryv1.Comparison_Value{Value: given.Value}
	case *registryv1.Compare_Exists:
		with.With, onlyEqual = &registryv1.Comparison_Exists{Exists: given.Exists}, true
	case *registryv1.Compare_Held:
		return t.compareLock(at, c, given.Held)
	default:
		return nil, fault.Invalid(at, "says nothing to compare with").
			WithRemedy("give one of modify_index, create_index, version, value, exists and held")
	}
	var err error
	if with.Operator, err = operator(at, c.GetOperator(), onlyEqual); err != nil {
		return nil, err
	}
	key, err := t.key(at+".key", c.GetKey())
	if err != nil {
		return nil, err
	}
	return &registryv1.Condition{
		Row: &registryv1.RecordKey{Table: table, Key: key.In(key.Scope)}, Reason: reasonCompared, Comparison: with, Chooses: true,
	}, nil
}

func (t *txn) compareLock(at string, c *registryv1.Compare, f *registryv1.Fence) (*registryv1.Condition, error) {
	if t.global {
		return nil, fault.New(fault.InvalidArgument, ReasonMixedScopes, "asks for a lock of this datacenter, and the transaction writes global keys, which only the primary does").
			WithField(at + ".held").WithRemedy("make two transactions of it")
	}
	if c.GetKey() != "" {
		return nil, fault.Invalid(at+".key", "does not go with held").WithRemedy("drop one of the two")
	}
	if _, err := operator(at, c.GetOperator(), true); err != nil {
		return nil, err
	}
	condition, err := held(at+".held", f)
	if err != nil {
		return nil, err
	}
	condition.Reason, condition.Chooses = reasonCompared, true
	return condition, nil
}

func operator(at string, o registryv1.Compare_Operator, onlyEqual bool) (registryv1.Comparison_Operator, error) {
	if _, known := registryv1.Compare_Operator_name[int32(o)]; !known {
		return 0, fault.Invalid(at+".operator", "%d is no operator", o).WithRemedy("use equal, not_equal, less or greater")
	}
	if onlyEqual && o > registryv1.Compare_OPERATOR_EQUAL {
		return 0, fault.Invalid(at+".operator", "does not go with exists and held").WithRemedy("leave it out")
	}
	return registryv1.Comparison_Operator(o), nil
}

// TxnOutcome returns what a transaction did.
func TxnOutcome(result *registryv1.CommandResult) (*registryv1.TxnResponse, error) {
	reason := result.GetFailedReason()
	if reason != "" && reason != reasonCompared {
		return nil, Outcome(result, record.Key{})
	}
	resp := &registryv1.TxnResponse{Succeeded: reason == ""}
	for _, outcome := range result.GetOutcomes() {
		r := &registryv1.TxnResult{}
		if row := outcome.GetRow(); row != nil {
			r.Entry = Entry(row)
		} else {
			r.Deleted = outcome.GetChanged()
		}
		resp.Results = append(resp.Results, r)
	}
	return resp, nil
}
