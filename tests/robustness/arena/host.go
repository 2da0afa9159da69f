package arena

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// host is a network namespace at the bridge and a disk in memory. A process that does nothing keeps
// the namespace.
type host struct {
	address string
	disk    string
	wire    string
	keeper  *exec.Cmd
	open    io.Closer
}

// diskBytes is what a host's disk holds: some times what a server writes during a run.
const diskBytes = 256 << 20

// hold is the process that keeps a namespace, until its input ends.
func hold() int {
	fmt.Fprintln(os.Stdout, "ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // However it ends, the host is gone.
	return 0
}

func newHost(number int, dir string) (*host, error) {
	h := &host{address: network + strconv.Itoa(10+number), disk: filepath.Join(dir, "disk")}
	if err := os.MkdirAll(h.disk, 0o700); err != nil {
		return nil, fmt.Errorf("make the disk's folder: %w", err)
	}
	if err := h.mount(); err != nil {
		return nil, err
	}
	h.keeper = exec.Command("/proc/self/exe")
	h.keeper.Env = append(os.Environ(), roleVariable+"="+roleHost)
	h.keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := h.keeper.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open the host's input: %w", err)
	}
	out, err := h.keeper.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open the host's output: %w", err)
	}
	if err := h.keeper.Start(); err != nil {
		return nil, fmt.Errorf("make a host: %w", err)
	}
	h.open = in
	if _, err := out.Read(make([]byte, 16)); err != nil {
		return nil, fmt.Errorf("make a host: %w", err)
	}
	// A name that no host before had: the kernel takes its time to remove those.
	h.wire = fmt.Sprintf("w%d", h.keeper.Process.Pid)
	if err := run(
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", h.wire, h.keeper.Process.Pid),
		fmt.Sprintf("ip link set %s master %s up", h.wire, bridge),
		"ip neigh flush dev "+bridge, // An earlier host had the address.
		h.inside("ip link set lo up"),
		h.inside("ip addr add %s/24 dev eth0", h.address),
		h.inside("ip link set eth0 up"),
		h.inside("nft add table inet cut"),
		h.inside("nft add chain inet cut in { type filter hook input priority 0 ; }"),
	); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// inside returns a command that runs in the host's network.
func (h *host) inside(command string, args ...any) string {
	return fmt.Sprintf("nsenter --net=/proc/%d/ns/net ", h.keeper.Process.Pid) + fmt.Sprintf(command, args...)
}

func (h *host) mount() error {
	if err := syscall.Mount("tmpfs", h.disk, "tmpfs", 0, fmt.Sprintf("size=%d", diskBytes)); err != nil {
		return fmt.Errorf("mount the disk %q: %w", h.disk, err)
	}
	return nil
}

// wipe makes the disk empty.
func (h *host) wipe() error {
	if err := syscall.Unmount(h.disk, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the disk %q: %w", h.disk, err)
	}
	return h.mount()
}

// deaf makes the host not hear another one.
func (h *host) deaf(to *host) error {
	return run(h.inside("nft add rule inet cut in ip saddr %s drop", to.address))
}

// hear undoes deaf.
func (h *host) hear() error { return run(h.inside("nft flush chain inet cut in")) }

const filler = "filler"

// fill leaves no room on the disk.
func (h *host) fill() error {
	f, err := os.Create(filepath.Join(h.disk, filler))
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		switch _, err := f.Write(block); {
		case errors.Is(err, syscall.ENOSPC):
			block = block[:len(block)/2]
		case err != nil:
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
	return nil
}

// drain undoes fill.
func (h *host) drain() error { return os.Remove(filepath.Join(h.disk, filler)) }

func (h *host) close() error {
	// The kernel takes its time to end a namespace, which answers for its address until then.
	err := errors.Join(run("ip link del "+h.wire), h.open.Close())
	_ = h.keeper.Wait() // It has nothing to say.
	return errors.Join(err, syscall.Unmount(h.disk, syscall.MNT_DETACH))
}
