package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/obs"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

// Schedule is when backups are made, and which are kept.
type Schedule struct {
	// Directory must exist unless it is the default: a disk that is not mounted must not be
	// mistaken for one.
	Directory string
	// Make says that the directory is the default and may be made.
	Make bool
	// Every is the time between two; 0: none are made.
	Every time.Duration
	// FullEvery makes every so manieth one full and those between increments on the one before.
	FullEvery int
	// Keep is how many stay, and KeepFor how long; 0: no limit.
	Keep    int
	KeepFor time.Duration
	// Recipients are age public keys; empty: the files are readable.
	Recipients []string
}

// retryAfter is how soon a failed backup is tried again.
const retryAfter = time.Minute

// Kept returns what this server's folder holds, oldest first.
func (m *Manager) Kept() ([]*registryv1.KeptBackup, error) {
	all, err := list(m.Schedule.Directory)
	if err != nil {
		return nil, err
	}
	out := make([]*registryv1.KeptBackup, len(all))
	for i, k := range all {
		out[i] = k.proto()
	}
	return out, nil
}

// Run makes scheduled backups until ctx ends. Only the leader should.
func (m *Manager) Run(ctx context.Context) {
	if m.Schedule.Every == 0 {
		return
	}
	m.remember()
	for {
		wait, err := m.due()
		if err == nil && wait <= 0 {
			err = m.Once(ctx)
			wait = m.Schedule.Every
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			m.Metrics.failures.Inc()
			m.Log.ErrorContext(ctx, "a scheduled backup failed", "directory", m.Schedule.Directory,
				"retry_in", retryAfter, "runbook", "docs/runbooks/registry-restore.md", obs.KeyError, err)
			wait = min(retryAfter, m.Schedule.Every)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.Clock.After(wait):
		}
	}
}

// remember tells of the last backup that this server made before it was started.
func (m *Manager) remember() {
	if all, err := list(m.Schedule.Directory); err == nil && len(all) > 0 {
		m.Metrics.fresh(all[len(all)-1].manifest.CreatedAt)
	}
}

// due returns how long it is until the next backup: restarts and new leaders do not put it off.
func (m *Manager) due() (time.Duration, error) {
	all, err := m.folder()
	if err != nil || len(all) == 0 {
		return 0, err
	}
	left := m.Schedule.Every - m.Clock.Now().Sub(all[len(all)-1].manifest.CreatedAt)
	return min(left, m.Schedule.Every), nil // The last one's clock may have been ahead.
}

// ReasonNoDirectory says that backups have nowhere to go.
const ReasonNoDirectory = "BACKUP_DIRECTORY_MISSING"

func (m *Manager) folder() ([]kept, error) {
	if m.Schedule.Make {
		if err := os.MkdirAll(m.Schedule.Directory, 0o700); err != nil {
			return nil, fmt.Errorf("make backup directory: %w", err)
		}
	}
	if info, err := os.Stat(m.Schedule.Directory); err != nil || !info.IsDir() {
		return nil, fault.New(fault.FailedPrecondition, ReasonNoDirectory, "the directory %q is not there", m.Schedule.Directory).
			WithField("registry.backup.directory").WithRemedy("mount or make it, writable for the registry").Wrap(err)
	}
	return list(m.Schedule.Directory)
}

// Once makes a backup now, unless nothing changed since the last one, and gives up what retention
// says.
func (m *Manager) Once(ctx context.Context) error {
	start := m.Clock.Now()
	all, err := m.folder()
	if err != nil {
		return err
	}
	if err := sweep(m.Schedule.Directory, start); err != nil {
		return err
	}
	if m.unchanged(all) {
		m.Metrics.fresh(start)
		m.Log.DebugContext(ctx, "nothing changed since the last backup")
		return nil
	}
	recipients, err := backupfile.ParseRecipients("registry.backup.recipients", m.Schedule.Recipients)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	file, manifest, err := m.Create(ctx, m.base(all))
	if fault.ReasonOf(err) == ReasonBaseTooOld || fault.ReasonOf(err) == ReasonForeignBase {
		file, manifest, err = m.Create(ctx, nil)
	}
	if err != nil {
		return err
	}
	k, err := store(m.Schedule.Directory, manifest, len(recipients) > 0, func(out io.Writer) error {
		sealed, err := backupfile.Encrypt(out, recipients)
		if err != nil {
			return err
		}
		_, err = io.Copy(sealed, file)
		return errors.Join(err, sealed.Close())
	})
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	took := m.Clock.Now().Sub(start)
	m.Metrics.made(m.Clock.Now(), took, k.bytes)
	m.Log.InfoContext(ctx, "made a scheduled backup", "path", k.path, "bytes", k.bytes, "index", manifest.Index, "incremental", manifest.Base != nil, "took", took)
	for _, old := range surplus(append(all, k), m.Schedule.Keep, m.Schedule.KeepFor, m.Clock.Now()) {
		if err := remove(old); err != nil {
			return fmt.Errorf("give up an old backup: %w", err)
		}
	}
	return nil
}

// unchanged says that the last backup is of the state as it is now.
func (m *Manager) unchanged(all []kept) bool {
	if len(all) == 0 {
		return false
	}
	last, own := all[len(all)-1].manifest, m.Describe()
	return last.Index == m.Applied() && last.FederationID == own.FederationID && last.DatacenterID == own.DatacenterID && last.Generation == own.Generation
}

// base returns the backup that the next one is an increment on, nil when it is to be full.
func (m *Manager) base(all []kept) *registryv1.BackupBase {
	chain := 1
	at := len(all) - 1
	for ; at > 0 && all[at].manifest.Base != nil; at-- {
		if all[at].manifest.Base.ID != all[at-1].manifest.ID {
			return nil // Somebody took a file away.
		}
		chain++
	}
	if at < 0 || all[at].manifest.Base != nil || chain >= m.Schedule.FullEvery {
		return nil
	}
	last := all[len(all)-1].manifest
	return &registryv1.BackupBase{
		Id: last.ID, Index: last.Index, FederationId: last.FederationID, DatacenterId: last.DatacenterID, Generation: last.Generation,
	}
}
