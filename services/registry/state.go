package registry

import (
	"slices"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/badgerstore"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/federation"
	"konsul.dev/services/registry/internal/fsm"
	"konsul.dev/services/registry/internal/lease"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/record"
	"konsul.dev/services/registry/internal/watch"
)

// state is the store and what follows it in memory. The Raft node feeds it before writers hear of
// their success, so a client that wrote reads its write in every one of these.
//
// One goroutine feeds it, the one that applies, and every write waits for it. It takes the lock of
// one view after the other, never two at a time: those of catalog.View, which readers hold while
// they select or encode, acl.View, member.View, lease.Keeper, which is held while a leadership
// begins, lease.Census and watch.Hub. So nobody who holds one of them may wait for an entry,
// another server or a slow reader. lease.Keeper reads the store under its lock, which comes before
// the store's; the others are loaded while the store is read, so the store's comes before theirs.
type state struct {
	store      *badgerstore.Store
	machine    *fsm.Machine
	catalog    *catalog.View
	tokens     *acl.View
	federation *federation.View
	members    *member.View
	leases     *lease.Keeper
	census     *lease.Census
	hub        *watch.Hub
}

// Committed follows a batch that the store shows already. The hub comes last: whoever it wakes must
// see the rest, and its index, up to which everything is published, is what a read index means.
func (s *state) Committed(index uint64, rows []*registryv1.Record) error {
	changed, err := s.catalog.Apply(index, rows)
	if err != nil {
		return err
	}
	for _, apply := range [...]func([]*registryv1.Record) error{
		s.tokens.Apply, s.members.Apply, s.leases.Apply, s.census.Apply, s.federation.Apply,
	} {
		if err := apply(rows); err != nil {
			return err
		}
	}
	if s.federation.Concerns(rows) {
		if err := s.store.View(s.federation.Load); err != nil {
			return err
		}
	}
	if len(changed) > 0 {
		rows = slices.Concat(rows, catalog.Topics(changed, index))
	}
	s.hub.Publish(index, rows)
	return nil
}

// Restored reads everything anew.
func (s *state) Restored() error {
	if err := s.load(); err != nil {
		return err
	}
	if err := s.leases.Restored(s.store); err != nil {
		return err
	}
	s.hub.Reset(s.store.Applied())
	return nil
}

func (s *state) load() error {
	return s.store.View(func(r record.Reader) error {
		for _, load := range []func(record.Reader) error{s.catalog.Load, s.tokens.Load, s.members.Load, s.census.Load, s.federation.Load} {
			if err := load(r); err != nil {
				return err
			}
		}
		return nil
	})
}
