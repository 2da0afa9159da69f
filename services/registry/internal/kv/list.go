package kv

import (
	"encoding/base64"
	"iter"
	"strings"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Limits of one page of a list. The bytes keep an answer below gRPC's default message size.
const (
	MaxEntries   = 10_000
	maxPageBytes = 3 << 20
	entryBytes   = 128
)

// ListOptions narrows a list.
type ListOptions struct {
	KeysOnly bool
	// Limit is how many entries to answer at most; 0: MaxEntries.
	Limit uint32
	// PageToken continues after an earlier page.
	PageToken string
}

// Page is one page of a list.
type Page struct {
	Entries []*registryv1.Entry
	// Next is the token of the page that follows; empty at the end.
	Next string
}

// List answers the entries below a prefix in the order of their keys; where both scopes have a key,
// the local entry comes first.
func List(r record.Reader, prefix record.Key, o ListOptions) (Page, error) {
	last, resumed, err := parseToken(o.PageToken)
	if err != nil {
		return Page{}, err
	}
	limit := MaxEntries
	if o.Limit > 0 {
		limit = int(min(o.Limit, MaxEntries))
	}
	var failure error
	var page Page
	size := 0
	for row := range merged(r, prefix, o.KeysOnly, last, resumed, &failure) {
		size += len(row.GetKey()) + len(row.GetValue()) + entryBytes
		if len(page.Entries) == limit || size > maxPageBytes && len(page.Entries) > 0 {
			page.Next = makeToken(page.Entries[len(page.Entries)-1])
			break
		}
		page.Entries = append(page.Entries, Entry(row))
	}
	return page, failure
}

// merged walks the scopes side by side.
func merged(r record.Reader, prefix record.Key, keysOnly bool, last record.Key, resumed bool, failure *error) iter.Seq[*registryv1.Record] {
	rows := func(scope registryv1.Scope) iter.Seq[*registryv1.Record] {
		return func(yield func(*registryv1.Record) bool) {
			o := record.ScanOptions{Prefix: prefix.In(scope), KeysOnly: keysOnly}
			if resumed {
				o.From = last.In(scope)
				if scope <= last.Scope {
					o.From += "\x00" // Behind the last one; a later scope may still have the same key.
				}
			}
			if err := r.Scan(table, o, yield); err != nil {
				*failure = err
			}
		}
	}
	scopes := prefix.Read()
	if len(scopes) == 1 {
		return rows(scopes[0])
	}
	return merge(rows(scopes[0]), rows(scopes[1]))
}

func merge(first, second iter.Seq[*registryv1.Record]) iter.Seq[*registryv1.Record] {
	return func(yield func(*registryv1.Record) bool) {
		nextA, stopA := iter.Pull(first)
		defer stopA()
		nextB, stopB := iter.Pull(second)
		defer stopB()
		a, okA := nextA()
		b, okB := nextB()
		for okA || okB {
			takeA := okA && (!okB || record.FromStored(a.GetKey()).Bare <= record.FromStored(b.GetKey()).Bare)
			if takeA {
				if !yield(a) {
					return
				}
				a, okA = nextA()
				continue
			}
			if !yield(b) {
				return
			}
			b, okB = nextB()
		}
	}
}

func makeToken(e *registryv1.Entry) string {
	key := record.Key{Bare: e.GetKey(), Scope: e.GetScope()}
	return base64.RawURLEncoding.EncodeToString([]byte(key.In(key.Scope)))
}

func parseToken(token string) (record.Key, bool, error) {
	if token == "" {
		return record.Key{}, false, nil
	}
	stored, err := base64.RawURLEncoding.DecodeString(token)
	key := record.FromStored(string(stored))
	if err != nil || key.Scope == registryv1.Scope_SCOPE_UNSPECIFIED || strings.ContainsRune(key.Bare, 0) {
		return record.Key{}, false, fault.Invalid("page_token", "is not one this registry made").
			WithRemedy("pass next_page_token of the page before, unchanged")
	}
	return key, true, nil
}
