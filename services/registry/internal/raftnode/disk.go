package raftnode

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/uuid"

	"konsul.dev/pkg/fault"
	"konsul.dev/services/registry/internal/record"
)

// Disk says whose data a folder holds.
type Disk struct {
	// ID is the server that wrote it.
	ID string `json:"id"`
	// Incarnation is made with the folder: a server that lost its data has another one.
	Incarnation string `json:"incarnation"`
	// Generation counts how often the cluster was recovered from a lost quorum.
	Generation uint64 `json:"generation"`
}

const (
	diskFile = "server.json"
	lockFile = "lock"
)

// Reasons of folders that cannot be used.
const (
	// ReasonFolderInUse says that another process has the Raft folder open.
	ReasonFolderInUse = "FOLDER_IN_USE"
	// ReasonForeignFolder says that the Raft folder was written by a server with another id.
	ReasonForeignFolder = "FOREIGN_FOLDER"
)

// openDisk reads whose folder it is, or makes it the server's own.
func openDisk(dir, id string) (Disk, error) {
	d, err := readDisk(dir)
	if errors.Is(err, fs.ErrNotExist) {
		d = Disk{ID: id, Incarnation: uuid.NewString()}
		return d, writeDisk(dir, d)
	}
	if err != nil {
		return d, err
	}
	if d.ID != id {
		return d, fault.New(fault.FailedPrecondition, ReasonForeignFolder, "the folder %q belongs to the server %q", dir, d.ID).
			WithField("registry.id").WithRemedy("give the server its own id back, or an empty data folder")
	}
	return d, nil
}

func readDisk(dir string) (Disk, error) {
	var d Disk
	text, err := os.ReadFile(filepath.Join(dir, diskFile))
	if err != nil {
		return d, fmt.Errorf("read whose folder it is: %w", err)
	}
	if err := json.Unmarshal(text, &d); err != nil || d.ID == "" || d.Incarnation == "" {
		return d, record.Damaged("%s in %q cannot be read", diskFile, dir).Wrap(err)
	}
	return d, nil
}

// writeDisk replaces the file whole, and has it on disk before it returns.
func writeDisk(dir string, d Disk) error {
	text, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode whose folder it is: %w", err)
	}
	path := filepath.Join(dir, diskFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write whose folder it is: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write whose folder it is: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace whose folder it is: %w", err)
	}
	parent, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open raft folder: %w", err)
	}
	if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
		return fmt.Errorf("sync raft folder: %w", err)
	}
	return nil
}

// lockWait bounds the wait for another owner of a folder: one that is stopping lets go soon.
const lockWait = 5 * time.Second

// lock takes a folder for this process alone. The log's own lock would wait for ever.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the raft folder: %w", err)
	}
	deadline := time.Now().Add(lockWait)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			return nil, errors.Join(fault.New(fault.FailedPrecondition, ReasonFolderInUse, "%q is in use by another process", dir).
				WithRemedy("stop the server that runs there first").Wrap(err), f.Close())
		}
		<-tick.C
	}
}
