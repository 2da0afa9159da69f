package backup

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/backupfile"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Target is the datacenter that a backup is restored into. It keeps who it is: its federation
// record, its trust anchors, its servers and its members are its own, not the backup's.
type Target struct {
	FederationID string
	Datacenter   string
	Epoch        uint64
	// Primary says that it takes global writes. A secondary's global rows and cursors are the
	// primary's to change: they stay as they are, so that replication goes on where it was.
	Primary bool
	// Caller is the accessor of the token that asks for the restore, which goes on working.
	Caller string
}

type rowID struct {
	table registryv1.Table
	key   string
}

// selection decides, row by row, what a restored state is made of.
type selection struct {
	target Target
	source backupfile.Manifest
	index  uint64
	// kept are the rows of the target that the backup's must not replace.
	kept map[rowID]struct{}
}

// newer says that the backup is of this very datacenter in a later epoch than it knows: a rebuilt
// datacenter must not fall back behind what it had promised.
func (s *selection) newer() bool {
	return s.source.FederationID == s.target.FederationID && s.source.Datacenter == s.target.Datacenter && s.source.Epoch > s.target.Epoch
}

// keeps reports whether a row of the target stays.
func (s *selection) keeps(row *registryv1.Record) bool {
	t, key := record.Tables().Of(row.GetTable()), row.GetKey()
	switch t.Restore {
	case record.RestoreKeeps, record.RestoreMerges:
		return true
	case record.RestoreNewest:
		return !s.newer()
	case record.RestoreCursors:
		return !s.target.Primary
	case record.RestoreReplaces:
	}
	if t.ID == registryv1.Table_TABLE_ACL_TOKEN && s.target.Caller != "" && strings.TrimPrefix(key, record.LocalPrefix) == s.target.Caller {
		return true
	}
	return !s.target.Primary && t.Global(key)
}

// keep notes a row of the target that stays.
func (s *selection) keep(row *registryv1.Record) {
	s.kept[rowID{row.GetTable(), row.GetKey()}] = struct{}{}
}

// takes reports whether a row of the backup becomes part of the state.
func (s *selection) takes(row *registryv1.Record) bool {
	t, key := record.Tables().Of(row.GetTable()), row.GetKey()
	if _, kept := s.kept[rowID{t.ID, key}]; kept || !t.BackedUp() {
		return false
	}
	switch t.Restore {
	case record.RestoreKeeps, record.RestoreCursors:
		return false
	case record.RestoreNewest:
		return s.newer()
	case record.RestoreReplaces, record.RestoreMerges:
	}
	// The target takes the place of the datacenter whose state it gets.
	if t.ID == registryv1.Table_TABLE_DATACENTER &&
		(s.source.FederationID != s.target.FederationID || key == s.source.Datacenter && key != s.target.Datacenter) {
		return false
	}
	return s.target.Primary || !t.Global(key)
}

// remap makes a row of the backup one of the target, changed now: whoever knew the row from before
// must not take it for the one it knew.
func (s *selection) remap(row *registryv1.Record) (*registryv1.Record, error) {
	out := proto.CloneOf(row)
	out.ModifyIndex = s.index
	if out.GetOriginDatacenter() == s.source.Datacenter {
		out.OriginDatacenter = s.target.Datacenter
	}
	if out.GetOriginDatacenter() == s.target.Datacenter {
		out.OriginIndex, out.OriginEpoch = s.index, s.epoch()
	}
	if s.source.Datacenter == s.target.Datacenter || row.GetTable() != registryv1.Table_TABLE_FAILOVER_POLICY {
		return out, nil
	}
	policy := &registryv1.FailoverPolicy{}
	if err := proto.Unmarshal(row.GetValue(), policy); err != nil {
		return nil, backupfile.Damaged("the failover policy %q cannot be decoded: %v", row.GetKey(), err)
	}
	for _, to := range policy.GetFailover() {
		if to.GetDatacenter() == s.source.Datacenter {
			to.Datacenter = s.target.Datacenter
		}
	}
	var err error
	out.Value, err = record.Encode(policy)
	return out, err
}

// epoch is the federation's when the restore is done.
func (s *selection) epoch() uint64 {
	if s.newer() {
		return s.source.Epoch
	}
	return s.target.Epoch
}
