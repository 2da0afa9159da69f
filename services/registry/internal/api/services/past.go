package services

import (
	"context"
	"sync"

	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/catalog"
	"konsul.dev/services/registry/internal/record"
)

// pastCatalog makes the catalogue as of an index from its rows. It makes one at a time and keeps
// the last: whoever looks at the past asks several questions about the same index.
type pastCatalog struct {
	mu    sync.Mutex
	index uint64
	view  *catalog.View
}

// at returns the catalogue a request asks about: the one in memory, or the one as of the index it
// names.
func (s *Service) at(ctx context.Context, req api.Dated) (*catalog.View, error) {
	if req.GetAtIndex() == 0 {
		return s.Catalog, nil
	}
	if err := s.Reach(ctx, req); err != nil {
		return nil, err
	}
	s.past.mu.Lock()
	defer s.past.mu.Unlock()
	err := s.Store.ViewAt(req.GetAtIndex(), func(r record.Reader) error {
		if s.past.view != nil && s.past.index == r.Index() {
			return nil
		}
		view := catalog.NewView(s.Federation.Datacenter())
		if err := view.Load(r); err != nil {
			return err
		}
		s.past.index, s.past.view = r.Index(), view
		return nil
	})
	return s.past.view, err
}
