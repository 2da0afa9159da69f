package acl

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// ReasonBootstrapped says that the federation has had its first management token.
const ReasonBootstrapped = "ACL_BOOTSTRAPPED"

// ResetFile is the file, in the data folder of the primary's leading server, that opens the
// bootstrap once more. It holds the reset index that a refused bootstrap returns, so that a file
// left behind opens nothing later.
const ResetFile = "acl-bootstrap-reset"

const (
	bootstrapTable = registryv1.Table_TABLE_ACL_BOOTSTRAP
	bootstrapKey   = "bootstrap"
)

// bootstrapped is the mark that stays when the first management token is gone: from then on nobody
// without a token becomes anyone.
func bootstrapped(accessor, datacenter string, now time.Time) (*registryv1.Operation, error) {
	return record.Put(bootstrapTable, bootstrapKey, datacenter, &registryv1.ACLBootstrap{AccessorId: accessor, Time: timestamppb.New(now)})
}

func bootstrapClosed(index uint64) error {
	return fault.New(fault.FailedPrecondition, ReasonBootstrapped, "the federation has had its first management token (reset index %d)", index).
		WithMeta("reset_index", strconv.FormatUint(index, 10)).
		WithRemedy("use it; if it is lost, set registry.initial_management_token_file and restart the primary's servers, or write the reset index " +
			"into acl-bootstrap-reset in the registry's folder of data_dir on the primary's leader and bootstrap again")
}

// ParseReset reads what the reset file holds. What is no index opens nothing.
func ParseReset(text string) uint64 {
	index, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return index
}

// open returns why there is no bootstrap, nil if there is.
func open(r record.Reader, mark *registryv1.Record, accessor string, reset uint64) error {
	if index := record.ModifyIndex(mark); index > 0 {
		made := &registryv1.ACLBootstrap{}
		if err := record.Decode(mark, made); err != nil {
			return err
		}
		// Who knows the secret of the token it made repeats a request: the command finds its first
		// outcome.
		if reset == index || made.GetAccessorId() == accessor {
			return nil
		}
		return bootstrapClosed(index)
	}
	all, err := Tokens(r)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Token.GetManagement() && !s.Token.GetLocal() {
			return bootstrapClosed(0)
		}
	}
	return nil
}

// Bootstrap returns the command that makes the first management token, of the request's secret.
// reset is what the reset file holds, 0 when there is none.
func (w Writer) Bootstrap(r record.Reader, req *registryv1.BootstrapRequest, reset uint64, now time.Time) (*registryv1.Command, *registryv1.ACLToken, error) {
	if err := checkSecret("secret", req.GetSecret()); err != nil {
		return nil, nil, err
	}
	mark, err := r.Get(bootstrapTable, bootstrapKey)
	if err != nil {
		return nil, nil, err
	}
	index := record.ModifyIndex(mark)
	accessor := accessorFor(req.GetSecret())
	if err := open(r, mark, accessor, reset); err != nil {
		return nil, nil, err
	}
	token := &registryv1.ACLToken{
		AccessorId: accessor, SecretHash: Hash(req.GetSecret()), Description: "bootstrap token", Management: true, CreatedAt: timestamppb.New(now),
	}
	cmd, err := w.putToken(r, token, nil, nil, record.When(tokenTable, accessor, 0, ReasonTokenExists))
	if err != nil {
		return nil, nil, err
	}
	done, err := bootstrapped(accessor, w.Datacenter, now)
	if err != nil {
		return nil, nil, err
	}
	cmd.Operations = append(cmd.Operations, done)
	cmd.Conditions = append(cmd.Conditions, record.When(bootstrapTable, bootstrapKey, index, ReasonBootstrapped))
	return cmd, token, nil
}
