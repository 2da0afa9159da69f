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
	// Separator, if there is one, ends a folder: what lies behind the first one after the prefix is
	// left out.
	Separator string
	// Sees says which stored keys to answer; nil: all of them.
	Sees func(key string) bool
}

// Page is one page of a list.
type Page struct {
	Entries []*registryv1.Entry
	// Folders are what keys have in common up to and including the separator, each once.
	Folders []string
	// Next is the token of the page that follows; empty at the end.
	Next string
}

// List returns the entries below a prefix in the order of their keys; where both scopes have a key,
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
	l := listing{reader: r, prefix: prefix, ListOptions: o, last: last, resumed: resumed}
	var page Page
	size, count, folder := 0, 0, ""
	var end record.Key
	for item := range l.items() {
		if item.folder && item.key.Bare == folder {
			continue // The other scope has it too.
		}
		size += len(item.key.Bare) + len(item.row.GetValue()) + entryBytes
		if count == limit || size > maxPageBytes && count > 0 {
			page.Next = makeToken(end)
			break
		}
		count++
		end = item.key
		if item.folder {
			folder, end = item.key.Bare, record.Key{Bare: item.key.Bare + behind, Scope: registryv1.Scope_SCOPE_GLOBAL}
			page.Folders = append(page.Folders, folder)
			continue
		}
		page.Entries = append(page.Entries, Entry(item.row))
	}
	return page, l.failure
}

// behind is more than any key has at its end: none holds this byte, which is not UTF-8.
const behind = "\xff"

// listing walks over what a list shows.
type listing struct {
	ListOptions
	reader  record.Reader
	prefix  record.Key
	last    record.Key
	resumed bool
	failure error
}

// item is an entry or a folder.
type item struct {
	key    record.Key
	row    *registryv1.Record
	folder bool
}

// items walks the scopes side by side.
func (l *listing) items() iter.Seq[item] {
	scopes := l.prefix.Read()
	if len(scopes) == 1 {
		return l.in(scopes[0])
	}
	return merge(l.in(scopes[0]), l.in(scopes[1]))
}

// in walks one scope. Behind a folder it begins a new scan: what is in it may be a million keys.
func (l *listing) in(scope registryv1.Scope) iter.Seq[item] {
	return func(yield func(item) bool) {
		o := record.ScanOptions{Prefix: l.prefix.In(scope), KeysOnly: l.KeysOnly}
		if l.resumed {
			o.From = l.last.In(scope)
			if scope <= l.last.Scope {
				o.From += "\x00" // Behind the last one; a later scope may still have the same key.
			}
		}
		for again := true; again; {
			again = false
			err := l.reader.Scan(table, o, func(row *registryv1.Record) bool {
				if l.Sees != nil && !l.Sees(row.GetKey()) {
					return true
				}
				folder, ok := l.folder(row.GetKey()[len(o.Prefix):])
				if !ok {
					return yield(item{key: record.FromStored(row.GetKey()), row: row})
				}
				o.From = o.Prefix + folder + behind
				again = yield(item{key: record.Key{Bare: l.prefix.Bare + folder, Scope: scope}, folder: true})
				return false
			})
			if err != nil {
				l.failure = err
			}
		}
	}
}

// folder returns the part of what follows the prefix up to and including the first separator.
func (l *listing) folder(rest string) (string, bool) {
	if l.Separator == "" {
		return "", false
	}
	at := strings.Index(rest, l.Separator)
	if at < 0 {
		return "", false
	}
	return rest[:at+len(l.Separator)], true
}

func merge(first, second iter.Seq[item]) iter.Seq[item] {
	return func(yield func(item) bool) {
		nextA, stopA := iter.Pull(first)
		defer stopA()
		nextB, stopB := iter.Pull(second)
		defer stopB()
		a, okA := nextA()
		b, okB := nextB()
		for okA || okB {
			takeA := okA && (!okB || a.key.Bare <= b.key.Bare)
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

func makeToken(key record.Key) string {
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
