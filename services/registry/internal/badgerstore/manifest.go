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

// manifest says what the store's files hold. It lies beside them, in a file that is replaced whole.
type manifest struct {
	// Synced is the index up to which everything is in the files, and survives a power failure.
	// What they hold above it is left over from a flush that was cut short.
	Synced uint64 `json:"synced"`
	// Watermark is the GC watermark: the index up to and including which old versions and
	// tombstones may be gone. It is missing in the manifests of early versions, which kept
	// everything above Synced.
	Watermark *uint64 `json:"floor"`
	// Oldest is the index of the last restore.
	Oldest uint64 `json:"oldest"`
}

// manifestText is a manifest as it may be written. Store is how versions with a requests file wrote
// it.
type manifestText struct {
	manifest
	Store *struct {
		manifest
		// Apart is the requests file's name; empty when there is none.
		Apart string `json:"apart"`
	} `json:"store"`
}

const manifestFile = "konsul-mark.json"

// readManifest returns the manifest in a folder, and the name of the requests file that belongs to
// it.
func readManifest(dir string) (m manifest, requestsFile string, err error) {
	path := filepath.Join(dir, manifestFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return manifest{}, "", nil
	}
	if err != nil {
		return manifest{}, "", fmt.Errorf("read store manifest: %w", err)
	}
	var text manifestText
	if err := json.Unmarshal(b, &text); err != nil {
		return manifest{}, "", record.Damaged("%q cannot be read", path).Wrap(err)
	}
	if text.Store != nil {
		return text.Store.manifest, text.Store.Apart, nil
	}
	return text.manifest, "", nil
}

func writeManifest(dir string, m manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode store manifest: %w", err)
	}
	path := filepath.Join(dir, manifestFile)
	fresh := path + ".new"
	if err := os.WriteFile(fresh, b, 0o600); err != nil {
		return fmt.Errorf("write store manifest: %w", err)
	}
	if err := syncFile(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("replace store manifest: %w", err)
	}
	return syncFile(dir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // The log of a Badger memtable that was flushed meanwhile: its table is durable.
	}
	if err != nil {
		return fmt.Errorf("open for sync: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
