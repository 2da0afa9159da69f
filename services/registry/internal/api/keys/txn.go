package keys

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/kv"
	"konsul.dev/services/registry/internal/record"
)

// Txn carries out all operations of one branch, or none.
func (s *Service) Txn(ctx context.Context, req *registryv1.TxnRequest) (*registryv1.TxnResponse, error) {
	s.Operations.WithLabelValues("txn").Inc()
	cmd, err := s.Writer.Txn(req)
	if err != nil {
		return nil, err
	}
	if size := proto.Size(cmd); size > s.MaxTxnBytes {
		return nil, fault.New(fault.InvalidArgument, ReasonTxnTooLarge, "is %d bytes long; at most %d are allowed", size, s.MaxTxnBytes).
			WithField("success").WithRemedy("make several transactions of it, or raise registry.max_txn_bytes")
	}
	rows := 0
	if cmd.GetMaxDeleted() > 0 {
		rows = api.ManyRows // It may be as many.
	}
	result, err := s.Sweep(ctx, rows, cmd)
	if err != nil {
		return nil, err
	}
	resp, err := kv.TxnOutcome(result)
	if err != nil {
		return nil, err
	}
	resp.Meta = s.WriteMeta(result.GetIndex())
	return resp, nil
}

// ReasonTxnTooLarge says that a transaction is over registry.max_txn_bytes.
const ReasonTxnTooLarge = "TXN_TOO_LARGE"

// NeedsOfTxn returns what a transaction takes: what each of its comparisons and operations would by
// itself, those of the branch that is not taken included.
func NeedsOfTxn(r *registryv1.TxnRequest) ([]acl.Need, error) {
	var out []acl.Need
	add := func(field, name string, access acl.Access, below bool) error {
		key, err := kv.TxnKey(r.GetScope(), field, name)
		out = append(out, acl.Need{Resource: acl.KV, Name: key.In(key.Scope), Access: access, Below: below})
		return err
	}
	for i, c := range r.GetCompare() {
		name := c.GetKey()
		if c.GetHeld() != nil {
			name = record.LocalPrefix + c.GetHeld().GetLock()
		}
		if err := add(fmt.Sprintf("compare[%d].key", i), name, acl.Read, false); err != nil {
			return nil, err
		}
	}
	for branch, operations := range map[string][]*registryv1.TxnOperation{"success": r.GetSuccess(), "failure": r.GetFailure()} {
		for i, op := range operations {
			var err error
			at := fmt.Sprintf("%s[%d]", branch, i)
			switch op := op.GetOperation().(type) {
			case *registryv1.TxnOperation_Get:
				err = add(at+".get.key", op.Get.GetKey(), acl.Read, false)
			case *registryv1.TxnOperation_Set:
				err = add(at+".set.key", op.Set.GetKey(), acl.Write, false)
			case *registryv1.TxnOperation_Delete:
				err = add(at+".delete.key", op.Delete.GetKey(), acl.Delete, false)
			case *registryv1.TxnOperation_DeletePrefix:
				err = add(at+".delete_prefix.key", op.DeletePrefix.GetKey(), acl.Delete, true)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// History returns the versions of a key.
func (s *Service) History(ctx context.Context, req *registryv1.HistoryRequest) (resp *registryv1.HistoryResponse, err error) {
	s.Operations.WithLabelValues("history").Inc()
	key, err := kv.KeyOf(ctx, req)
	if err != nil {
		return nil, err
	}
	key = narrow(ctx, key)
	err = s.Store.View(func(r record.Reader) (err error) {
		if resp, err = kv.History(r, key, req.GetLimit(), req.GetBefore()); err != nil {
			return api.WithIndex(err, r.Index())
		}
		resp.Meta = s.QueryMeta(r.Index())
		return nil
	})
	return resp, err
}
