package badgerstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"konsul.dev/services/registry/internal/record"
)

// mark is what the store must know before it can trust its files. It lives beside them, in a file
// that is replaced whole.
type mark struct {
	// Synced is the index up to which everything is in the files, and survives a power failure. What they hold above it is leftovers.
	Synced uint64 `json:"synced"`
	// Floor is the index up to and including which old versions and tombstones may be gone; missing in the marks of earlier
	// versions, which kept everything above Synced.
	Floor *uint64 `json:"floor"`
	// Oldest is the index of the last restore.
	Oldest uint64 `json:"oldest"`
	// Apart is the name of the file with the rows that are kept apart; empty when there is none.
	Apart string `json:"apart,omitempty"`
}

// markText is a mark as it is written. Earlier versions do not know where the rows kept apart are, and must not go on without them: they find what they take for
// the mark of a store that nothing was flushed to, and begin with their snapshot and their log.
type markText struct {
	mark        // that of an earlier version
	Store *mark `json:"store"`
}

const markFile = "konsul-mark.json"

func readMark(dir string) (mark, error) {
	b, err := os.ReadFile(filepath.Join(dir, markFile))
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, fmt.Errorf("read store mark: %w", err)
	}
	var text markText
	if err := json.Unmarshal(b, &text); err != nil {
		return mark{}, record.Damaged("%q cannot be read", filepath.Join(dir, markFile)).Wrap(err)
	}
	if text.Store != nil {
		return *text.Store, nil
	}
	return text.mark, nil
}

func writeMark(dir string, m mark) error {
	b, err := json.Marshal(markText{Store: &m})
	if err != nil {
		return fmt.Errorf("encode store mark: %w", err)
	}
	path := filepath.Join(dir, markFile)
	fresh := path + ".new"
	if err := os.WriteFile(fresh, b, 0o600); err != nil {
		return fmt.Errorf("write store mark: %w", err)
	}
	if err := syncFile(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("replace store mark: %w", err)
	}
	return syncFile(dir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // A memtable's log that was flushed meanwhile: its table is durable.
	}
	if err != nil {
		return fmt.Errorf("open for sync: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
