package federation

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Own is what a datacenter knows of itself from its configuration and its certificate.
type Own struct {
	FederationID      string
	Datacenter        string
	PrimaryDatacenter string
	GatewayAddresses  []string
	Version           string
	// NewID makes the id of a datacenter that has none.
	NewID func() string
	// NewLineage makes the id of a history that begins.
	NewLineage func() string
	// FoundAs is the history that a new registry is to go on with, by an operator's word; empty: a
	// new one.
	FoundAs string
	// Started is when this server started.
	Started time.Time
}

// reasonRaced says that another server was first; the next look settles it.
const reasonRaced = "RACED"

// Ensure returns the command that brings the record of the federation and of the own datacenter up
// to date, nil when they are. The record is founded once; afterwards only a promotion changes it. A
// secondary's own entry is provisional until the primary's copy of it, made at the join, arrives.
func (o Own) Ensure(r record.Reader, now time.Time) (*registryv1.Command, error) {
	cmd := &registryv1.Command{}
	lineage, err := o.ensureRecord(r, cmd, now)
	if err != nil {
		return nil, err
	}
	if err := o.ensureDatacenter(r, cmd, lineage, now); err != nil {
		return nil, err
	}
	if len(cmd.GetOperations()) == 0 {
		return nil, nil
	}
	return cmd, nil
}

// ensureRecord returns the id of the registry's history.
func (o Own) ensureRecord(r record.Reader, cmd *registryv1.Command, now time.Time) (string, error) {
	f := &federationv1.Federation{}
	row, err := record.Find(r, registryv1.Table_TABLE_FEDERATION, recordKey, f)
	if err != nil || f.GetLineageId() != "" {
		return f.GetLineageId(), err
	}
	if row == nil {
		f = &federationv1.Federation{
			Id: o.FederationID, Epoch: FirstEpoch, PrimaryDatacenter: o.PrimaryDatacenter, LineageId: o.FoundAs,
			History: []*federationv1.Epoch{{Number: FirstEpoch, PrimaryDatacenter: o.PrimaryDatacenter, BeganAt: timestamppb.New(now)}},
		}
	}
	if f.GetLineageId() == "" { // It is new, or an older version founded it.
		f.LineageId = o.NewLineage()
	}
	op, err := record.Put(registryv1.Table_TABLE_FEDERATION, recordKey, o.Datacenter, f)
	if err != nil {
		return "", err
	}
	cmd.Operations = append(cmd.Operations, op)
	cmd.Conditions = append(cmd.Conditions, record.When(registryv1.Table_TABLE_FEDERATION, recordKey, row.GetModifyIndex(), reasonRaced))
	return f.GetLineageId(), nil
}

func (o Own) ensureDatacenter(r record.Reader, cmd *registryv1.Command, lineage string, now time.Time) error {
	dc := &federationv1.Datacenter{}
	row, err := record.Find(r, registryv1.Table_TABLE_DATACENTER, o.Datacenter, dc)
	if err != nil {
		return err
	}
	if row != nil {
		// A row that came from elsewhere is that datacenter's to change.
		current := dc.GetVersion() == o.Version && dc.GetLineageId() == lineage && slices.Equal(dc.GetGatewayAddresses(), o.GatewayAddresses)
		if current || row.GetOriginDatacenter() != o.Datacenter {
			return nil
		}
	} else {
		dc.Name, dc.Id, dc.JoinedAt = o.Datacenter, o.NewID(), timestamppb.New(now)
	}
	dc.GatewayAddresses, dc.Version, dc.LineageId = o.GatewayAddresses, o.Version, lineage
	op, err := record.Put(registryv1.Table_TABLE_DATACENTER, o.Datacenter, o.Datacenter, dc)
	if err != nil {
		return err
	}
	cmd.Operations = append(cmd.Operations, op)
	cmd.Conditions = append(cmd.Conditions, record.When(registryv1.Table_TABLE_DATACENTER, o.Datacenter, row.GetModifyIndex(), reasonRaced))
	return nil
}
