package federation

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
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
	// Started is when this server started.
	Started time.Time
}

// reasonRaced says that another server was first; the next look settles it.
const reasonRaced = "RACED"

// Ensure answers the command that brings the record of the federation and of the own datacenter up to
// date, nil when they are. The record is founded once; afterwards only a promotion changes it. A
// secondary's own entry is provisional until the primary's copy of it, made at the join, arrives.
func (o Own) Ensure(r record.Reader, now time.Time) (*registryv1.Command, error) {
	cmd := &registryv1.Command{}
	if err := o.ensureRecord(r, cmd, now); err != nil {
		return nil, err
	}
	if err := o.ensureDatacenter(r, cmd, now); err != nil {
		return nil, err
	}
	if len(cmd.GetOperations()) == 0 {
		return nil, nil
	}
	return cmd, nil
}

func (o Own) ensureRecord(r record.Reader, cmd *registryv1.Command, now time.Time) error {
	row, err := r.Get(registryv1.Table_TABLE_FEDERATION, recordKey)
	if err != nil || record.Live(row) {
		return err
	}
	op, err := put(registryv1.Table_TABLE_FEDERATION, recordKey, o.Datacenter, &federationv1.Federation{
		Id: o.FederationID, Epoch: FirstEpoch, PrimaryDatacenter: o.PrimaryDatacenter,
		History: []*federationv1.Epoch{{Number: FirstEpoch, PrimaryDatacenter: o.PrimaryDatacenter, BeganAt: timestamppb.New(now)}},
	})
	if err != nil {
		return err
	}
	cmd.Operations = append(cmd.Operations, op)
	cmd.Conditions = append(cmd.Conditions, when(registryv1.Table_TABLE_FEDERATION, recordKey, 0, reasonRaced))
	return nil
}

func (o Own) ensureDatacenter(r record.Reader, cmd *registryv1.Command, now time.Time) error {
	row, err := r.Get(registryv1.Table_TABLE_DATACENTER, o.Datacenter)
	if err != nil {
		return err
	}
	dc := &federationv1.Datacenter{}
	if record.Live(row) {
		if err := proto.Unmarshal(row.GetValue(), dc); err != nil {
			return err
		}
		// A row that came from elsewhere is that datacenter's to change.
		current := dc.GetVersion() == o.Version && slices.Equal(dc.GetGatewayAddresses(), o.GatewayAddresses)
		if current || row.GetOriginDatacenter() != o.Datacenter {
			return nil
		}
	} else {
		dc.Name, dc.Id, dc.JoinedAt = o.Datacenter, o.NewID(), timestamppb.New(now)
	}
	dc.GatewayAddresses, dc.Version = o.GatewayAddresses, o.Version
	op, err := put(registryv1.Table_TABLE_DATACENTER, o.Datacenter, o.Datacenter, dc)
	if err != nil {
		return err
	}
	cmd.Operations = append(cmd.Operations, op)
	cmd.Conditions = append(cmd.Conditions, when(registryv1.Table_TABLE_DATACENTER, o.Datacenter, record.ModifyIndex(row), reasonRaced))
	return nil
}
