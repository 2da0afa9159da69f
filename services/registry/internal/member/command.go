package member

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Record is the command that stores a server's row.
func Record(m *registryv1.Member, datacenter string) (*registryv1.Command, error) {
	return put(registryv1.Table_TABLE_SERVER, m.GetId(), datacenter, m)
}

// Forget is the command that drops a server's row.
func Forget(id string) *registryv1.Command {
	return &registryv1.Command{Operations: []*registryv1.Operation{{Op: &registryv1.Operation_Delete{
		Delete: &registryv1.RecordKey{Table: registryv1.Table_TABLE_SERVER, Key: id},
	}}}}
}

func put(table registryv1.Table, key, datacenter string, message proto.Message) (*registryv1.Command, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode %s %q: %w", table, key, err)
	}
	return &registryv1.Command{Operations: []*registryv1.Operation{{Op: &registryv1.Operation_Put{
		Put: &registryv1.Record{Table: table, Key: key, Value: value, OriginDatacenter: datacenter},
	}}}}, nil
}
