package backup

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"konsul.dev/pkg/backupfile"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
)

const (
	filePrefix  = "backup-"
	fileSuffix  = ".tar.gz"
	ageSuffix   = fileSuffix + ".age"
	noteSuffix  = ".json"
	partSuffix  = ".part"
	stampLayout = "20060102T150405.000Z"
)

// kept is a backup in the folder. Its note lies beside it, since an encrypted file does not say
// what it is.
type kept struct {
	path     string
	manifest backupfile.Manifest
	bytes    int64
}

func (k kept) encrypted() bool { return strings.HasSuffix(k.path, ageSuffix) }

// list returns what a folder holds, oldest first; nothing of one that is not there. Files without a
// note are somebody else's.
func list(dir string) ([]kept, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list backup directory: %w", err)
	}
	var all []kept
	for _, entry := range entries {
		if !ours(entry.Name(), noteSuffix) {
			continue
		}
		note := filepath.Join(dir, entry.Name())
		text, err := os.ReadFile(note)
		if errors.Is(err, fs.ErrNotExist) {
			continue // It was given up meanwhile.
		}
		if err != nil {
			return nil, fmt.Errorf("read backup note: %w", err)
		}
		k := kept{path: strings.TrimSuffix(note, noteSuffix)}
		if err := json.Unmarshal(text, &k.manifest); err != nil {
			continue
		}
		info, err := os.Stat(k.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at backup file: %w", err)
		}
		k.bytes = info.Size()
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int {
		return cmp.Or(a.manifest.CreatedAt.Compare(b.manifest.CreatedAt), cmp.Compare(a.path, b.path))
	})
	return all, nil
}

// ours reports whether a file may be the schedule's.
func ours(name, suffix string) bool {
	return strings.HasPrefix(name, filePrefix) && strings.HasSuffix(name, suffix)
}

// abandonedAfter is when a file that is not complete is nobody's any more: the folder may be that
// of several servers, of which another one writes.
const abandonedAfter = 24 * time.Hour

// sweep removes what servers that died left in the middle of a backup: parts of files, and notes of
// none.
func sweep(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list backup directory: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		left := ours(entry.Name(), partSuffix)
		if ours(entry.Name(), noteSuffix) {
			_, err := os.Stat(strings.TrimSuffix(path, noteSuffix))
			left = errors.Is(err, fs.ErrNotExist)
		}
		info, err := entry.Info()
		if !left || err != nil || now.Sub(info.ModTime()) < abandonedAfter {
			continue
		}
		errs = append(errs, removeFile(path))
	}
	return errors.Join(errs...)
}

// store writes a backup into a folder: whole, durable and under its name, or not at all.
func store(dir string, m backupfile.Manifest, encrypted bool, write func(io.Writer) error) (_ kept, err error) {
	suffix := fileSuffix
	if encrypted {
		suffix = ageSuffix
	}
	k := kept{manifest: m, path: filepath.Join(dir, filePrefix+m.Datacenter+"-"+m.CreatedAt.UTC().Format(stampLayout)+suffix)}
	part := k.path + partSuffix
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return k, fmt.Errorf("make backup file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	out := bufio.NewWriterSize(f, 1<<20)
	if err = write(out); err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return k, fmt.Errorf("write backup file: %w", err)
	}
	info, err := os.Stat(part)
	if err != nil {
		return k, fmt.Errorf("look at backup file: %w", err)
	}
	k.bytes = info.Size()
	note, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return k, fmt.Errorf("encode backup note: %w", err)
	}
	if err = os.WriteFile(k.path+noteSuffix, note, 0o600); err != nil {
		return k, fmt.Errorf("write backup note: %w", err)
	}
	if err = os.Rename(part, k.path); err != nil {
		return k, fmt.Errorf("name backup file: %w", err)
	}
	return k, syncDir(dir)
}

// syncDir makes names survive a power failure.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open backup directory: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync backup directory: %w", err)
	}
	return nil
}

// surplus returns what retention gives up: whole chains, a full backup with all its increments,
// oldest first, as long as at least keep backups and the newest chain remain, and chains of which
// even the newest is too old. keep and keepFor of 0 mean no limit.
func surplus(all []kept, keep int, keepFor time.Duration, now time.Time) []kept {
	var chains [][]kept
	for _, k := range all {
		if k.manifest.Base == nil || len(chains) == 0 {
			chains = append(chains, nil)
		}
		chains[len(chains)-1] = append(chains[len(chains)-1], k)
	}
	var gone []kept
	for remaining := len(all); len(chains) > 1; chains = chains[1:] {
		oldest := chains[0]
		tooMany := keep > 0 && remaining-len(oldest) >= keep
		tooOld := keepFor > 0 && now.Sub(oldest[len(oldest)-1].manifest.CreatedAt) > keepFor
		if !tooMany && !tooOld {
			break
		}
		gone = append(gone, oldest...)
		remaining -= len(oldest)
	}
	return gone
}

// remove gives a backup up, its note last: one without the other is none.
func remove(k kept) error { return errors.Join(removeFile(k.path), removeFile(k.path+noteSuffix)) }

// removeFile removes a file that may be gone.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

func (k kept) proto() *registryv1.KeptBackup {
	out := &registryv1.KeptBackup{
		Path: k.path, Bytes: uint64(k.bytes), Id: k.manifest.ID, Index: k.manifest.Index, //nolint:gosec // a size
		CreatedAt: timestamppb.New(k.manifest.CreatedAt), Encrypted: k.encrypted(),
	}
	if k.manifest.Base != nil {
		out.BaseId = k.manifest.Base.ID
	}
	return out
}
