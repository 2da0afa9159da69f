package catalog

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Rows are kept as they are stored and decoded for whoever asks: a decoded one is several times as
// large. What is kept was decoded once when it was loaded, or encoded by a server of the
// datacenter.

// decode reads a row that is known to be decodable.
func decode(raw []byte, m proto.Message) { must(proto.Unmarshal(raw, m)) }

// must is about rows that are known to be decodable.
func must(err error) {
	if err != nil {
		panic("catalog: a row that should be decodable: " + err.Error())
	}
}

// check is a check's row.
type check struct {
	id       string
	raw      []byte
	modified uint64
	status   registryv1.HealthStatus
	// ttl is nil unless reports are expected.
	ttl *durationpb.Duration
}

func newCheck(id string, row *registryv1.Record) (*check, error) {
	value := &registryv1.Check{}
	if err := proto.Unmarshal(row.GetValue(), value); err != nil {
		return nil, err
	}
	return &check{id: id, raw: row.GetValue(), modified: row.GetModifyIndex(), status: value.GetStatus(), ttl: value.GetTtl()}, nil
}

// value returns the check as callers get it; nil for nil.
func (c *check) value() *registryv1.Check {
	if c == nil {
		return nil
	}
	out := &registryv1.Check{}
	decode(c.raw, out)
	out.ModifyIndex = c.modified
	return out
}

// indexOf returns the index at which the check last changed; 0 for nil.
func (c *check) indexOf() uint64 {
	if c == nil {
		return 0
	}
	return c.modified
}

func values(checks []*check) []*registryv1.Check {
	if len(checks) == 0 {
		return nil
	}
	out := make([]*registryv1.Check, len(checks))
	for i, c := range checks {
		out[i] = c.value()
	}
	return out
}
