package federation

import (
	"cmp"
	"fmt"
	"slices"

	federationv1 "konsul.dev/proto/gen/konsul/federation/v1"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// FirstEpoch is the epoch in which a federation is founded.
const FirstEpoch = 1

// recordKey is the one key of the federation table.
const recordKey = "federation"

// Read returns the federation record with its members, nil when this datacenter has none yet.
func Read(r record.Reader) (*federationv1.Federation, error) {
	f := &federationv1.Federation{}
	row, err := record.Find(r, registryv1.Table_TABLE_FEDERATION, recordKey, f)
	if err != nil || row == nil {
		return nil, err
	}
	f.Members, err = Members(r)
	return f, err
}

// Members returns the datacenters this one knows as members, by name.
func Members(r record.Reader) ([]*federationv1.Datacenter, error) {
	var members []*federationv1.Datacenter
	err := record.Each(r, datacenters, record.ScanOptions{}, func(row *registryv1.Record) error {
		dc := &federationv1.Datacenter{}
		members = append(members, dc)
		return record.Decode(row, dc)
	})
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	slices.SortFunc(members, func(a, b *federationv1.Datacenter) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return members, nil
}
