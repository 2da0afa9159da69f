package kv

import (
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

const (
	defaultVersions = 100
	maxVersions     = 1000
)

// History returns the versions of a key, the newest first. Of a bare key they are the datacenter's
// own, if it has any.
func History(r record.Reader, key record.Key, limit uint32, before uint64) (*registryv1.HistoryResponse, error) {
	if limit > maxVersions {
		return nil, fault.Invalid("limit", "is %d; at most %d versions come in one answer", limit, maxVersions).WithRemedy("go on with before")
	}
	if limit == 0 {
		limit = defaultVersions
	}
	resp := &registryv1.HistoryResponse{}
	for _, scope := range key.Read() {
		size := 0
		after, err := r.History(table, key.In(scope), func(row *registryv1.Record) bool {
			if before > 0 && row.GetModifyIndex() >= before {
				return true
			}
			size += len(row.GetKey()) + len(row.GetValue()) + entryBytes
			if n := len(resp.GetVersions()); n == int(limit) || n > 0 && size > maxPageBytes {
				resp.NextBefore = resp.GetVersions()[n-1].GetEntry().GetModifyIndex()
				return false
			}
			resp.Versions = append(resp.Versions, &registryv1.KeyVersion{Entry: Entry(row), Deleted: row.GetDeleted()})
			return true
		})
		if err != nil {
			return nil, err
		}
		resp.CompleteAfter = after
		if len(resp.GetVersions()) > 0 {
			return resp, nil
		}
	}
	return nil, NotFound(key)
}
