package badgerstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

func requestKey(index uint64) string { return fmt.Sprintf("%016x", index) }

func requestRow(index uint64) *registryv1.Record {
	return &registryv1.Record{
		Table: requests, Key: requestKey(index), Value: fmt.Appendf(nil, "outcome of %d", index), CreateIndex: index, ModifyIndex: index, Version: 1,
	}
}

// slide commits entries as the state machine does: each has a row of its own, and drops that of
// width entries before.
func slide(t require.TestingT, s *Store, first, last, width uint64) {
	for index := first; index <= last; index++ {
		b := s.Begin()
		tx := b.At(index)
		require.NoError(t, tx.Put(requestRow(index)))
		require.NoError(t, tx.Put(row(fmt.Sprintf("row-%d", index%8), "v", index)))
		if index > width {
			require.NoError(t, tx.Drop(requests, requestKey(index-width)))
		}
		require.NoError(t, b.Commit())
		b.Discard()
	}
}

// inWindow returns what is wrong with the records that a reader finds, who must find those of the
// last width entries.
func inWindow(r record.Reader, width uint64) error {
	next := r.Index() - min(r.Index(), width) + 1
	err := r.Scan(requests, record.ScanOptions{}, func(row *registryv1.Record) bool {
		if row.GetKey() != requestKey(next) || string(row.GetValue()) != fmt.Sprintf("outcome of %d", next) {
			return false
		}
		next++
		return true
	})
	if err == nil && next != r.Index()+1 {
		err = fmt.Errorf("as of %d: the row of %d is missing or another one", r.Index(), next)
	}
	return err
}

// Rows that come and go all the time, as idempotency records do: whoever reads while they are
// flushed sees those of one index, all of them.
func TestAReaderSeesOneIndexWhileRowsAreFlushed(t *testing.T) {
	o := testOptions(t.TempDir())
	o.RetentionBytes, o.MemtableBytes = 32<<10, 64<<10
	s := mustOpen(t, o)
	const width, last = 200, 6000
	slide(t, s, 1, width, width)
	ctx, stop := context.WithCancel(t.Context())
	var all errgroup.Group
	reader := func(read func() error) {
		all.Go(func() error {
			for ctx.Err() == nil {
				if err := read(); err != nil && fault.ReasonOf(err) != record.ReasonCompacted {
					return err
				}
			}
			return nil
		})
	}
	reader(func() error { return s.View(func(r record.Reader) error { return inWindow(r, width) }) })
	reader(func() error {
		oldest, applied := s.Oldest(), s.Applied()
		return s.ViewAt(max(width, oldest+rand.Uint64N(applied-oldest+1)), func(r record.Reader) error {
			key := r.Index() - rand.Uint64N(width)
			row, err := r.Get(requests, requestKey(key))
			if err == nil && row.GetModifyIndex() != key {
				err = fmt.Errorf("as of %d: the row of %d is one of %d", r.Index(), key, row.GetModifyIndex())
			}
			if err == nil {
				err = inWindow(r, width)
			}
			return err
		})
	})
	reader(func() error {
		e, err := s.Export(0)
		if err != nil {
			return err
		}
		defer e.Close()
		rows := 0
		for {
			row, err := e.Next()
			if err != nil {
				return err
			}
			if row == nil {
				break
			}
			if row.GetTable() == requests {
				rows++
			}
		}
		if rows != width {
			return fmt.Errorf("an export as of %d has %d outcomes", e.Index(), rows)
		}
		return nil
	})
	all.Go(func() error { return s.Maintain(ctx) })
	slide(t, s, width+1, last, width)
	stop()
	require.NoError(t, all.Wait())
	require.Greater(t, s.synced.Load(), uint64(last/2), "hardly anything was flushed, so nothing is tested")
}
