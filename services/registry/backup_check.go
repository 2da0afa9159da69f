package registry

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/record"
)

// holds returns why this program could not live with a row of a backup, nil if it can: a row that
// the store refuses or a view cannot decode would stop every server, after the old state is gone.
func (s *Service) holds(row *registryv1.Record) error {
	if _, known := registryv1.Table_name[int32(row.GetTable())]; !known {
		return fault.New(fault.FailedPrecondition, backupfile.ReasonNewerFormat, "the backup has rows of table %d, which this program does not know", row.GetTable()).
			WithField("file").WithRemedy("restore it with the version that made it, see `konsulctl backup inspect`")
	}
	err := s.store.Fits(row)
	if err == nil {
		err = s.follows(row)
	}
	if err != nil {
		return backupfile.Damaged("the row %q of %s cannot be used: %v", row.GetKey(), backupfile.TableName(row.GetTable()), err)
	}
	return nil
}

// follows shows a row to what would follow it.
func (s *Service) follows(row *registryv1.Record) error {
	rows := []*registryv1.Record{row}
	switch row.GetTable() {
	case registryv1.Table_TABLE_NODE, registryv1.Table_TABLE_SERVICE, registryv1.Table_TABLE_CHECK:
		_, err := catalog.NewView(s.cfg.Server.Datacenter).Apply(row.GetModifyIndex(), rows)
		return err
	case registryv1.Table_TABLE_ACL_TOKEN, registryv1.Table_TABLE_ACL_POLICY, registryv1.Table_TABLE_ACL_ROLE:
		return acl.NewView(s.deps.Clock).Apply(rows)
	case registryv1.Table_TABLE_SERVER, registryv1.Table_TABLE_SETTING:
		return member.NewView().Apply(rows)
	case registryv1.Table_TABLE_LEASE:
		if !strings.HasPrefix(row.GetKey(), fsm.LeasePrefix) {
			return nil
		}
		_, err := lease.Decode(row)
		return err
	}
	if value := record.Tables().Of(row.GetTable()).Value; value != nil {
		if err := proto.Unmarshal(row.GetValue(), value()); err != nil {
			return fmt.Errorf("decode its value: %w", err)
		}
	}
	return nil
}
