package backupfile

import (
	"encoding/json"
	"fmt"
	"time"

	"konsul.dev/pkg/fault"
)

// Format is the version of the file format this program writes and reads.
const Format = 1

// Reasons of files that cannot be used.
const (
	// ReasonDamaged says that a file is not what was written: truncated, changed, or no backup at
	// all.
	ReasonDamaged = "BACKUP_DAMAGED"
	// ReasonNewerFormat says that a newer program wrote the file.
	ReasonNewerFormat = "BACKUP_FORMAT_NEWER"
	// ReasonBrokenChain says that files are not a full backup and the increments on it, in order.
	ReasonBrokenChain = "BACKUP_CHAIN_BROKEN"
	// ReasonEncrypted says that a file is encrypted and no key for it was given.
	ReasonEncrypted = "BACKUP_ENCRYPTED"
)

// Manifest opens a backup: what it is of.
type Manifest struct {
	Format int    `json:"format" yaml:"format"`
	ID     string `json:"id" yaml:"id"`
	// FederationID, Datacenter and DatacenterID say whose state it is.
	FederationID string `json:"federation_id" yaml:"federation_id"`
	Datacenter   string `json:"datacenter" yaml:"datacenter"`
	DatacenterID string `json:"datacenter_id" yaml:"datacenter_id"`
	// Index is the one index whose state this is; Epoch is the federation's at it.
	Index uint64 `json:"index" yaml:"index"`
	Epoch uint64 `json:"epoch" yaml:"epoch"`
	// Generation counts how often the cluster was recovered from a lost quorum: an index of another
	// one means something else.
	Generation uint64    `json:"generation" yaml:"generation"`
	CreatedAt  time.Time `json:"created_at" yaml:"created_at"`
	Version    string    `json:"version" yaml:"version"`
	// Base is what an increment stands on, nil in a full backup.
	Base *Base `json:"base,omitempty" yaml:"base,omitempty"`
}

// Base names a backup that others stand on.
type Base struct {
	ID    string `json:"id" yaml:"id"`
	Index uint64 `json:"index" yaml:"index"`
}

// Seal closes a backup: how much it is, and the hash over it.
type Seal struct {
	Chunks int `json:"chunks" yaml:"chunks"`
	// Bytes is the size of the rows before compression.
	Bytes uint64 `json:"bytes" yaml:"bytes"`
	// Rows and Tombstones count both by table.
	Rows       map[string]uint64 `json:"rows" yaml:"rows"`
	Tombstones map[string]uint64 `json:"tombstones,omitempty" yaml:"tombstones,omitempty"`
	// SHA256 is the hash chain over the manifest and the chunks' hashes, in hexadecimal.
	SHA256 string `json:"sha256" yaml:"sha256"`
}

// Damaged is the fault of a file that is not what was written.
func Damaged(format string, args ...any) *fault.Error {
	return fault.New(fault.DataLoss, ReasonDamaged, "the backup is damaged: "+format, args...).
		WithRemedy("use another copy, or an older backup; nothing was changed")
}

func parseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, Damaged("the manifest cannot be read: %v", err)
	}
	switch {
	case m.Format > Format:
		return m, fault.New(fault.FailedPrecondition, ReasonNewerFormat, "the backup has format %d, this program reads up to %d", m.Format, Format).
			WithRemedy("use the program version that wrote it, " + m.Version + ", or a newer one")
	case m.Format < 1 || m.ID == "" || m.Datacenter == "" || m.Index == 0:
		return m, Damaged("the manifest is incomplete")
	case m.Base != nil && (m.Base.ID == "" || m.Base.Index > m.Index):
		return m, Damaged("the manifest names an impossible base")
	}
	return m, nil
}

// CheckChain returns why files, in the order of the manifests, are not one full backup and the
// increments on it, nil if they are.
func CheckChain(chain []Manifest) error {
	const remedy = "give the full backup first, then every increment on it, oldest first; see `konsulctl backup inspect`"
	broken := func(i int, format string, args ...any) error {
		return fault.New(fault.FailedPrecondition, ReasonBrokenChain, "file %d: %s", i+1, fmt.Sprintf(format, args...)).WithField("file").WithRemedy(remedy)
	}
	if len(chain) == 0 {
		return fault.New(fault.InvalidArgument, ReasonBrokenChain, "no backup was given").WithField("file").WithRemedy(remedy)
	}
	if base := chain[0].Base; base != nil {
		return broken(0, "is an increment on the backup %s", base.ID)
	}
	for i, m := range chain[1:] {
		previous := chain[i]
		switch {
		case m.Base == nil:
			return broken(i+1, "is a full backup")
		case m.Base.ID != previous.ID || m.Base.Index != previous.Index:
			return broken(i+1, "is an increment on the backup %s at index %d, not on %s at %d", m.Base.ID, m.Base.Index, previous.ID, previous.Index)
		case m.DatacenterID != previous.DatacenterID || m.FederationID != previous.FederationID:
			return broken(i+1, "is of another datacenter than the file before it")
		}
	}
	return nil
}
