package federation

import (
	"konsul.dev/pkg/fault"
	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// ReasonOtherLineage says that two registries with histories of their own go by one datacenter's
// name; the one that the federation knew first is the datacenter.
const ReasonOtherLineage = "OTHER_LINEAGE"

// lineageRemedy is what the operator of the second registry does.
const lineageRemedy = "stop the registry that is not the datacenter; a server that lost its disk joins the others by registry.join"

// Lineage returns the id of the own registry's history; empty before it is founded.
func (v *View) Lineage() string { return v.current.Load().GetLineageId() }

// LineageOf returns the history by which the federation knows a datacenter's registry; empty: not
// known.
func (v *View) LineageOf(datacenter string) string {
	for _, m := range v.current.Load().GetMembers() {
		if m.GetName() == datacenter {
			return m.GetLineageId()
		}
	}
	return ""
}

// CheckLineage refuses what is meant for another registry of this datacenter's name. Whoever does
// not say whom they mean, and whatever comes before the registry is founded, passes.
func (v *View) CheckLineage(meant string) error {
	own := v.Lineage()
	if meant == "" || own == "" || meant == own {
		return nil
	}
	return fault.New(fault.FailedPrecondition, ReasonOtherLineage, "the registry that answers for datacenter %s has history %s, the federation knows %s",
		v.own.Datacenter, own, meant).WithRemedy(lineageRemedy)
}

// Claim returns the command that records which history a member's registry has, nil when that is
// recorded. The first one stays: a second registry of the member's name is refused.
func Claim(r record.Reader, datacenter, lineage string) (*registryv1.Command, error) {
	dc := &federationv1.Datacenter{}
	row, err := record.Find(r, datacenters, datacenter, dc)
	if err != nil || row == nil {
		return nil, err
	}
	switch dc.GetLineageId() {
	case lineage:
		return nil, nil
	case "":
	default:
		return nil, fault.New(fault.FailedPrecondition, ReasonOtherLineage, "a registry with history %s speaks for datacenter %s, the federation knows %s",
			lineage, datacenter, dc.GetLineageId()).WithRemedy(lineageRemedy)
	}
	dc.LineageId = lineage
	op, err := record.Put(datacenters, datacenter, row.GetOriginDatacenter(), dc)
	if err != nil {
		return nil, err
	}
	return &registryv1.Command{
		Operations: []*registryv1.Operation{op},
		Conditions: []*registryv1.Condition{record.When(datacenters, datacenter, row.GetModifyIndex(), reasonRaced)},
	}, nil
}
