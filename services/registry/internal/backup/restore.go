package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/record"
)

// Reasons of refused restores.
const (
	// ReasonRestoreRunning says that another restore is under way.
	ReasonRestoreRunning = "RESTORE_RUNNING"
	// ReasonTooLarge says that the files are larger than a server may lay down.
	ReasonTooLarge = "BACKUP_TOO_LARGE"
	// ReasonForeignBackup says that a backup is of another datacenter and nobody said where it is
	// to go.
	ReasonForeignBackup = "BACKUP_OF_ANOTHER_DATACENTER"
)

// highestIndex is beyond what a cluster reaches, and leaves room above.
const highestIndex = 1 << 60

// Intake is a restore that receives its files. Close it.
type Intake struct {
	m     *Manager
	dir   string
	files []string
	open  *os.File
	bytes int64
}

// Receive begins a restore; one at a time.
func (m *Manager) Receive() (*Intake, error) {
	if !m.restoring.TryLock() {
		return nil, fault.New(fault.FailedPrecondition, ReasonRestoreRunning, "another restore is under way").WithRemedy("wait until it has ended")
	}
	if err := os.MkdirAll(m.Spool, 0o700); err != nil {
		m.restoring.Unlock()
		return nil, fmt.Errorf("make folder for the files to restore: %w", err)
	}
	return &Intake{m: m, dir: m.Spool}, nil
}

// Write adds bytes to the file that is coming in.
func (in *Intake) Write(p []byte) (int, error) {
	if in.bytes += int64(len(p)); in.bytes > in.m.MaxRestoreBytes {
		return 0, fault.New(fault.ResourceExhausted, ReasonTooLarge, "the files are larger than %d bytes", in.m.MaxRestoreBytes).
			WithField("file").WithRemedy("raise registry.backup.max_restore_bytes on the servers; see that their disks have room")
	}
	if in.open == nil {
		f, err := os.OpenFile(filepath.Join(in.dir, fmt.Sprintf("%04d", len(in.files))), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return 0, fmt.Errorf("lay down a file to restore: %w", err)
		}
		in.open = f
		in.files = append(in.files, f.Name())
	}
	n, err := in.open.Write(p)
	if err != nil {
		return n, fmt.Errorf("lay down a file to restore: %w", err)
	}
	return n, nil
}

// End says that the file is complete.
func (in *Intake) End() error {
	if in.open == nil {
		return backupfile.Damaged("a file is empty")
	}
	err := in.open.Close()
	in.open = nil
	return err
}

// Close gives the files' room back.
func (in *Intake) Close() error {
	defer in.m.restoring.Unlock()
	var err error
	if in.open != nil {
		err = in.open.Close()
	}
	return errors.Join(err, os.RemoveAll(in.dir))
}

// Order is what a restore was told.
type Order struct {
	// Datacenter was named as the one to restore into; empty: nobody said.
	Datacenter string
	DryRun     bool
	// Caller is the accessor of the token that asks.
	Caller string
}

// Restore checks the files that came in and replaces the state by theirs. Until all of them have
// been read and found whole nothing changes.
func (in *Intake) Restore(ctx context.Context, o Order) (*registryv1.RestoreBackupResponse, error) {
	manifests, err := in.verify()
	if err != nil {
		return nil, err
	}
	last := manifests[len(manifests)-1]
	if last.Index > highestIndex {
		return nil, backupfile.Damaged("index %d is none that a cluster reaches", last.Index)
	}
	target := in.m.Target()
	target.Caller = o.Caller
	if last.Datacenter != target.Datacenter && o.Datacenter == "" {
		return nil, fault.New(fault.FailedPrecondition, ReasonForeignBackup, "the backup is of datacenter %s, this is %s", last.Datacenter, target.Datacenter).
			WithField("datacenter").WithRemedy("if it is to replace what " + target.Datacenter + " has, say --datacenter " + target.Datacenter)
	}
	s := &selection{
		target: target, source: last, kept: map[rowID]struct{}{},
		index: nextIndex(in.m.LastIndex(), last.Index, in.m.Retention, in.m.Clock.Now().Sub(last.CreatedAt)),
	}
	answer := &registryv1.RestoreBackupResponse{
		Datacenter: target.Datacenter, SourceDatacenter: last.Datacenter, BackupIndex: last.Index, DryRun: o.DryRun, Notes: notes(s),
	}
	snapshot, err := in.build(s, answer)
	if err != nil {
		return nil, err
	}
	defer func() { _ = snapshot.Close() }()
	if o.DryRun {
		return answer, nil
	}
	info, err := snapshot.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the snapshot: %w", err)
	}
	if _, err := snapshot.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind the snapshot: %w", err)
	}
	in.m.Log.WarnContext(ctx, "replacing the state by a backup", "backup", last.ID, "source_datacenter", last.Datacenter, "index", s.index)
	if err := in.m.Install(s.index, info.Size(), bufio.NewReaderSize(snapshot, 1<<20)); err != nil {
		return nil, err
	}
	answer.Index = s.index
	if err := in.m.Restored(ctx); err != nil {
		answer.Notes = append(answer.Notes, "the state was restored; what the leader does afterwards failed and is tried again: "+err.Error())
	}
	return answer, nil
}

// notes is what an operator should know.
func notes(s *selection) []string {
	var out []string
	if s.source.FederationID != s.target.FederationID {
		out = append(out, "the backup is of another federation: members and trust anchors were not taken over")
	}
	if s.target.Primary {
		out = append(out, "tokens are the backup's again; the initial management token and the token that asked for this go on working")
	} else {
		out = append(out, "this datacenter is a secondary: global rows stay as the primary has them, the backup's were not taken over")
	}
	return out
}

// verify reads every file to its end.
func (in *Intake) verify() ([]backupfile.Manifest, error) {
	var manifests []backupfile.Manifest
	for i, path := range in.files {
		m, err := verifyFile(path)
		if err != nil {
			return nil, fmt.Errorf("file %d: %w", i+1, err)
		}
		manifests = append(manifests, m)
	}
	return manifests, backupfile.CheckChain(manifests)
}

func verifyFile(path string) (backupfile.Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return backupfile.Manifest{}, fmt.Errorf("open a file to restore: %w", err)
	}
	m, _, err := backupfile.Verify(f)
	return m, errors.Join(err, f.Close())
}

// build writes the snapshot of the state to come: what the target keeps, then what the backup
// brings.
func (in *Intake) build(s *selection, answer *registryv1.RestoreBackupResponse) (_ *os.File, err error) {
	f, err := os.OpenFile(filepath.Join(in.dir, "snapshot"), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	out := bufio.NewWriterSize(f, 1<<20)
	put := func(m proto.Message) error {
		if _, err := protodelim.MarshalTo(out, m); err != nil {
			return fmt.Errorf("write the snapshot: %w", err)
		}
		return nil
	}
	if err := put(&registryv1.SnapshotHeader{Index: s.index, Format: record.SnapshotFormat}); err != nil {
		return nil, err
	}
	if err := in.keep(s, answer, put); err != nil {
		return nil, err
	}
	if err := in.take(s, answer, put); err != nil {
		return nil, err
	}
	if err := out.Flush(); err != nil {
		return nil, fmt.Errorf("write the snapshot: %w", err)
	}
	return f, nil
}

func (in *Intake) keep(s *selection, answer *registryv1.RestoreBackupResponse, put func(proto.Message) error) error {
	current, err := in.m.Export(0)
	if err != nil {
		return err
	}
	defer current.Close()
	for {
		row, err := current.Next()
		if err != nil || row == nil {
			return err
		}
		if !s.keeps(row) {
			continue
		}
		s.keep(row)
		answer.Kept++
		if err := put(row); err != nil {
			return err
		}
	}
}

func (in *Intake) take(s *selection, answer *registryv1.RestoreBackupResponse, put func(proto.Message) error) (err error) {
	readers := make([]*backupfile.Reader, len(in.files))
	for i, path := range in.files {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open a file to restore: %w", err)
		}
		defer func() { _ = f.Close() }()
		if readers[i], err = backupfile.NewReader(f); err != nil {
			return err
		}
	}
	rows, err := merge(readers)
	if err != nil {
		return err
	}
	counts := map[string]uint64{}
	for {
		row, err := rows.next()
		if err != nil {
			return err
		}
		if row == nil {
			break
		}
		if !s.takes(row) {
			continue
		}
		counts[backupfile.TableName(row.GetTable())]++
		remapped, err := s.remap(row)
		if err == nil {
			err = in.m.Holds(remapped)
		}
		if err == nil {
			err = put(remapped)
		}
		if err != nil {
			return err
		}
	}
	for table, rows := range counts {
		answer.Restored = append(answer.Restored, &registryv1.TableCount{Table: table, Rows: rows})
	}
	slices.SortFunc(answer.GetRestored(), func(a, b *registryv1.TableCount) int { return strings.Compare(a.GetTable(), b.GetTable()) })
	return nil
}
