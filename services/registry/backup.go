package registry

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"time"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/services/registry/internal/backup"
)

// Backup is the `registry.backup` section.
type Backup struct {
	// Every is the time between two scheduled backups, which the leader makes; 0: none.
	Every time.Duration `koanf:"every"`
	// Directory is where they go; default: the folder backups in the registry's data. Another one
	// must exist.
	Directory string `koanf:"directory"`
	// FullEvery makes every so manieth one full, and those between increments on the one before.
	FullEvery int `koanf:"full_every"`
	// Keep is how many are kept, whole chains of a full one and its increments; 0: no limit.
	Keep int `koanf:"keep"`
	// KeepFor is how long they are kept; 0: no limit.
	KeepFor time.Duration `koanf:"keep_for"`
	// Recipients are age public keys that the files are encrypted for; empty: they are not
	// encrypted.
	Recipients []string `koanf:"recipients"`
	// MaxRestoreBytes bounds the files that one restore may lay down on the leader's disk.
	MaxRestoreBytes int64 `koanf:"max_restore_bytes"`
}

func defaultBackup() Backup { return Backup{FullEvery: 1, Keep: 14, MaxRestoreBytes: 16 << 30} }

func (b Backup) validate() error {
	const least = time.Second
	_, err := backupfile.ParseRecipients("registry.backup.recipients", b.Recipients)
	errs := []error{
		config.AtLeast("registry.backup.every", cmp.Or(b.Every, least), least, "use a time such as 1h, or 0 for no scheduled backups"),
		config.AtLeast("registry.backup.full_every", b.FullEvery, 1, "use 1 for full backups alone"),
		config.AtLeast("registry.backup.keep", b.Keep, 0, ""),
		config.AtLeast("registry.backup.keep_for", b.KeepFor, 0, ""),
		config.AtLeast("registry.backup.max_restore_bytes", b.MaxRestoreBytes, leastSegment, ""),
		err,
	}
	if b.Directory != "" && !filepath.IsAbs(b.Directory) {
		errs = append(errs, fault.Invalid("registry.backup.directory", "%q is no absolute path", b.Directory))
	}
	return errors.Join(errs...)
}

// newBackups makes what backs up this server's state and restores its datacenter's.
func (s *Service) newBackups() (*backup.Manager, error) {
	metrics := backup.NewMetrics(s.deps.Telemetry.Metrics)
	b := s.cfg.Registry.Backup
	schedule := backup.Schedule{
		Directory: b.Directory, Every: b.Every, FullEvery: b.FullEvery, Keep: b.Keep, KeepFor: b.KeepFor, Recipients: b.Recipients,
	}
	if schedule.Directory == "" {
		schedule.Directory, schedule.Make = s.dir("backups"), true
	}
	return backup.New(backup.Params{
		Export: func(since uint64) (backup.Export, error) {
			e, err := s.store.Export(since)
			if err != nil {
				return nil, err
			}
			return e, nil
		},
		Retention: s.cfg.Registry.Retention.Indexes, Watermark: s.store.Watermark, Applied: s.store.Applied, Describe: s.describe, Target: s.target,
		LastIndex: s.node.LastIndex, Holds: s.holds, Install: s.node.Install,
		Restored: func(ctx context.Context) error { return s.duties.Begin(ctx, s.node) },
		Spool:    s.dir("restore"), MaxRestoreBytes: b.MaxRestoreBytes,
		Schedule: schedule, Metrics: metrics, Clock: s.deps.Clock, Log: s.deps.Telemetry.Log,
	})
}

// describe says whose state a backup is.
func (s *Service) describe() backupfile.Manifest {
	f := s.state.federation
	m := backupfile.Manifest{
		FederationID: f.FederationID(), Datacenter: f.Datacenter(), Epoch: f.Epoch(),
		Generation: s.node.Disk().Generation, Version: s.deps.Version,
	}
	for _, dc := range f.Federation().GetMembers() {
		if dc.GetName() == m.Datacenter {
			m.DatacenterID = dc.GetId()
		}
	}
	return m
}

// target is this datacenter as a restore finds it.
func (s *Service) target() backup.Target {
	f := s.state.federation
	return backup.Target{FederationID: f.FederationID(), Datacenter: f.Datacenter(), Epoch: f.Epoch(), Primary: f.IsPrimary()}
}
