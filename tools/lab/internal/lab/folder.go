package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"konsul.dev/tools/lab/internal/plan"
	"konsul.dev/tools/lab/internal/process"
)

// programPrefix begins the name of every program a lab starts.
const programPrefix = "konsul-"

// keptFile marks a folder whose data is to be used again; it says how the data was laid out.
const keptFile = "kept"

// folder is the lab's directory, held by one lab at a time.
type folder struct {
	layout plan.Layout
	lock   *os.File
	// reused says that a kept lab's secrets and data are there.
	reused bool
}

// acquire takes the lab's directory and clears what a crashed lab left in it. It refuses while
// another lab, or a process of one, still uses it.
func acquire(layout plan.Layout) (*folder, error) {
	if err := os.MkdirAll(layout.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the lab's folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(layout.Dir, "lab.pid"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lab's lock: %w", err)
	}
	f := &folder{layout: layout, lock: lock}
	if err := f.claim(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return f, nil
}

func (f *folder) claim() error {
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, readErr := os.ReadFile(f.lock.Name())
		if readErr != nil {
			holder = []byte("unknown")
		}
		return fmt.Errorf("a lab already runs in %q (pid %s): end it with Ctrl-C or `kill` there, or choose another folder with --dir",
			f.layout.Dir, strings.TrimSpace(string(holder)))
	}
	if err := f.refuseLiving(); err != nil {
		return err
	}
	if err := f.inherit(); err != nil {
		return err
	}
	if err := f.lock.Truncate(0); err != nil {
		return fmt.Errorf("write the lab's pid: %w", err)
	}
	if _, err := f.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write the lab's pid: %w", err)
	}
	return nil
}

// refuseLiving returns an error naming the processes of an earlier lab that still run.
func (f *folder) refuseLiving() error {
	var living []string
	for _, dc := range f.layout.Datacenters {
		pids, err := readPIDs(dc.PIDFile())
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if process.Alive(pid, programPrefix) {
				living = append(living, strconv.Itoa(pid))
			}
		}
	}
	if len(living) == 0 {
		return nil
	}
	pids := strings.Join(living, " ")
	return fmt.Errorf("processes of an earlier lab in %q still run: %s; end them with `kill -9 %s`", f.layout.Dir, pids, pids)
}

// inherit decides whether the folder's data is used again, and removes it if not.
func (f *folder) inherit() error {
	kept, err := os.ReadFile(filepath.Join(f.layout.Dir, keptFile))
	if errors.Is(err, os.ErrNotExist) {
		return f.remove()
	}
	if err != nil {
		return fmt.Errorf("read what the last lab kept: %w", err)
	}
	if was := strings.TrimSpace(string(kept)); was != f.fingerprint() {
		return fmt.Errorf("%q keeps the data of a lab with %s, this one has %s: start it as before, or remove the folder",
			f.layout.Dir, was, f.fingerprint())
	}
	f.reused = true
	return nil
}

// fingerprint names what the data depends on: servers know each other by address.
func (f *folder) fingerprint() string {
	if f.layout.Network == "" {
		return "shared address"
	}
	return "network " + f.layout.Network
}

// release gives the folder back, with its data for the next lab, with its logs for a reader, or
// with nothing.
func (f *folder) release(keep, keepLogs bool) error {
	var errs []error
	switch {
	case keep:
		errs = append(errs, os.WriteFile(filepath.Join(f.layout.Dir, keptFile), []byte(f.fingerprint()+"\n"), 0o600))
		for _, dc := range f.layout.Datacenters {
			errs = append(errs, removeFiles(dc.PIDFile(), dc.EnvFile()))
		}
	case keepLogs:
		for _, dc := range f.layout.Datacenters {
			errs = append(errs, removeFiles(dc.PIDFile(), dc.EnvFile(), dc.DataDir(), dc.SecretFile(), dc.KeysDir(), dc.TokenFile(), dc.JoinTokenFile()))
		}
	default:
		errs = append(errs, f.remove())
	}
	return errors.Join(append(errs, f.giveBack())...)
}

// giveBack ends the hold on the folder and leaves its content alone.
func (f *folder) giveBack() error {
	errs := []error{removeFiles(f.lock.Name()), f.lock.Close()}
	// Only an empty folder goes; a user may have put something there.
	if err := os.Remove(f.layout.Dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		errs = append(errs, fmt.Errorf("remove the lab's folder: %w", err))
	}
	return errors.Join(errs...)
}

// remove deletes everything a lab makes, and nothing else.
func (f *folder) remove() error {
	paths := []string{filepath.Join(f.layout.Dir, keptFile), filepath.Join(f.layout.Dir, "control")}
	for _, dc := range f.layout.Datacenters {
		paths = append(paths, dc.PIDFile(), dc.EnvFile(), dc.Dir())
	}
	return removeFiles(paths...)
}

func removeFiles(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("remove a lab's file: %w", err))
		}
	}
	return errors.Join(errs...)
}

func readPIDs(path string) ([]int, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pid file: %w", err)
	}
	var pids []int
	for _, field := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid <= 0 {
			return nil, fmt.Errorf("read pid file %q: %q is no pid; remove the file", path, field)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
