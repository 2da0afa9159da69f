package member

import (
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Record is the command that stores a server's row.
func Record(m *registryv1.Member, datacenter string) (*registryv1.Command, error) {
	put, err := record.Put(registryv1.Table_TABLE_SERVER, m.GetId(), datacenter, m)
	return &registryv1.Command{Operations: []*registryv1.Operation{put}}, err
}
