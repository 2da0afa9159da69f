package backup

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused backups and restores.
const (
	// ReasonBaseTooOld says that deletions since the base may be forgotten: an increment would miss
	// them.
	ReasonBaseTooOld = "BACKUP_BASE_TOO_OLD"
	// ReasonForeignBase says that the base is of another datacenter, or of a history that was given
	// up.
	ReasonForeignBase = "BACKUP_BASE_FOREIGN"
)

// Export is the state at one index, row by row.
type Export interface {
	Index() uint64
	// Next returns nil after the last row.
	Next() (*registryv1.Record, error)
	// Replaced is closed when somebody waits for the export to end.
	Replaced() <-chan struct{}
	Close()
}

// Params is what a Manager needs from its surroundings.
type Params struct {
	// Export begins to read the state, or what changed in it since an index.
	Export func(since uint64) (Export, error)
	// Watermark is the index up to which deletions may be forgotten.
	Watermark func() uint64
	// Retention is how many indexes the watermark lies behind.
	Retention uint64
	// Describe returns a manifest of the datacenter, without id, index and time.
	Describe func() backupfile.Manifest
	// Target returns the datacenter as a restore finds it.
	Target func() Target
	// LastIndex is the highest index this cluster has given out.
	LastIndex func() uint64
	// Holds returns why a row of a backup cannot be held, nil if it can.
	Holds func(row *registryv1.Record) error
	// Install makes a snapshot of the state file the cluster's state at an index above all others.
	Install func(index uint64, size int64, snapshot io.Reader) error
	// Restored is called after a restore, where it was asked for.
	Restored func(ctx context.Context) error
	// Spool is a folder for files on their way in.
	Spool string
	// MaxRestoreBytes bounds what one restore may lay down there, the snapshot it makes of it not
	// counted.
	MaxRestoreBytes int64
	// Applied is the index of the last change.
	Applied  func() uint64
	Schedule Schedule
	Metrics  *Metrics
	Clock    clock.Clock
	Log      *slog.Logger
}

// Manager makes and restores backups.
type Manager struct {
	Params
	restoring sync.Mutex
}

// New returns a manager. It empties Spool: a server that died in the middle of a restore left its
// files.
func New(p Params) (*Manager, error) {
	if err := os.RemoveAll(p.Spool); err != nil {
		return nil, fmt.Errorf("empty the folder for files to restore: %w", err)
	}
	return &Manager{Params: p}, nil
}

// Create returns a backup of the state as it is now, or with a base of what changed since. Reading
// it fails with a fault; the caller closes it.
func (m *Manager) Create(ctx context.Context, base *registryv1.BackupBase) (io.ReadCloser, backupfile.Manifest, error) {
	manifest := m.Describe()
	if err := m.checkBase(base, manifest); err != nil {
		return nil, manifest, err
	}
	e, err := m.Export(base.GetIndex())
	if err != nil {
		return nil, manifest, err
	}
	manifest.ID, manifest.Index, manifest.CreatedAt = uuid.NewString(), e.Index(), m.Clock.Now().UTC().Truncate(time.Millisecond)
	if base != nil {
		manifest.Base = &backupfile.Base{ID: base.GetId(), Index: base.GetIndex()}
	}
	out, in := io.Pipe()
	done := make(chan struct{})
	go func() {
		// A reader that stands still must not keep a restore waiting, nor outlive its call.
		select {
		case <-e.Replaced():
			_ = in.CloseWithError(fault.New(fault.Aborted, record.ReasonReplaced, "the state was replaced while it was backed up").WithRemedy("make the backup again"))
		case <-ctx.Done():
			_ = in.CloseWithError(context.Cause(ctx))
		case <-done:
		}
	}()
	go func() {
		defer close(done)
		defer e.Close()
		_ = in.CloseWithError(write(in, manifest, e)) // Of nil it makes io.EOF.
	}()
	return out, manifest, nil
}

func write(to io.Writer, manifest backupfile.Manifest, e Export) error {
	out := bufio.NewWriterSize(to, 64<<10)
	w, err := backupfile.NewWriter(out, manifest)
	if err != nil {
		return err
	}
	for {
		row, err := e.Next()
		if err != nil {
			return err
		}
		if row == nil {
			break
		}
		if !record.Tables().Of(row.GetTable()).BackedUp() {
			continue
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	if _, err := w.Close(); err != nil {
		return err
	}
	return out.Flush()
}

// checkBase returns why there can be no increment on a base.
func (m *Manager) checkBase(base *registryv1.BackupBase, own backupfile.Manifest) error {
	if base == nil {
		return nil
	}
	const remedy = "make a full backup: leave out --base"
	switch {
	case base.GetId() == "" || base.GetIndex() == 0:
		return fault.Invalid("base", "needs an id and an index").WithRemedy("give the file of the backup to stand on")
	case base.GetDatacenterId() != own.DatacenterID || base.GetFederationId() != own.FederationID:
		return fault.New(fault.FailedPrecondition, ReasonForeignBase, "the base is a backup of another datacenter").WithField("base").WithRemedy(remedy)
	case base.GetGeneration() != own.Generation || base.GetIndex() > m.LastIndex():
		return fault.New(fault.FailedPrecondition, ReasonForeignBase, "the base is of a history that this cluster has given up").WithField("base").WithRemedy(remedy)
	case base.GetIndex() < m.Watermark():
		return fault.New(fault.FailedPrecondition, ReasonBaseTooOld, "deletions are remembered from index %d on, the base is at %d", m.Watermark(), base.GetIndex()).
			WithField("base").WithRemedy(remedy)
	}
	return nil
}

// indexes a second are more than any cluster writes.
const indexesPerSecond = 1 << 16

// indexGap is more than what is in flight at any time. With what the store remembers on top, every
// reader from before the restore stands below the watermark and is told to begin anew.
const indexGap = 1 << 20

// nextIndex returns the index of a restored state: above all that this cluster has given out, and
// above all that the backup's cluster can have given out since it was made.
func nextIndex(last, backedUp, retention uint64, age time.Duration) uint64 {
	since := uint64(max(0, age)/time.Second) + 1 //nolint:gosec // not negative
	return max(last, backedUp+since*indexesPerSecond) + retention + indexGap
}
