package arena

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// roleVariable says what a process of the test binary is.
const (
	roleVariable = "KONSUL_ARENA"
	roleInside   = "inside"
	roleHost     = "host"
	roleServer   = "server"
	roleOutside  = "outside" // tests that need the arena are skipped

	reasonVariable = "KONSUL_ARENA_REASON"
	// cannot is the exit code of a process that could not make its namespaces.
	cannot = 77
)

// Main executes the test binary again in namespaces of its own and runs the tests there. It answers
// the exit code.
func Main(m *testing.M) int {
	switch os.Getenv(roleVariable) {
	case roleInside:
		if err := lay(); err != nil {
			fmt.Fprintln(os.Stderr, "arena:", err)
			return cannot
		}
		return m.Run()
	case roleHost:
		return hold()
	case roleServer:
		return serve()
	case roleOutside:
		return m.Run()
	}
	code, err := again(roleInside)
	if err == nil && code != cannot {
		return code
	}
	reason := fmt.Sprintf("network namespaces cannot be made here (%v): run as root, with ip and nft installed", errors.Join(err, fmt.Errorf("exit code %d", code)))
	if os.Getenv("CI") == "true" {
		fmt.Fprintln(os.Stderr, "arena:", reason)
		return 1
	}
	if err := os.Setenv(reasonVariable, reason); err != nil {
		return 1
	}
	code, err = again(roleOutside)
	if err != nil {
		fmt.Fprintln(os.Stderr, "arena:", err)
		return 1
	}
	return code
}

// Require skips a test where there is no arena.
func Require(t *testing.T) {
	t.Helper()
	if os.Getenv(roleVariable) != roleInside {
		t.Skip("SKIPPED: " + os.Getenv(reasonVariable))
	}
}

func again(role string) (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if role == roleInside {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if os.Geteuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
		}
	}
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode(), nil
	}
	return 0, err
}

// The bridge and its addresses; the tests' own is the first.
const (
	bridge  = "konsul0"
	network = "10.83.0."
)

// lay makes the bridge and keeps mounts to this namespace.
func lay() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	return run(
		"ip link set lo up",
		"ip link add "+bridge+" type bridge",
		"ip addr add "+network+"1/24 dev "+bridge,
		"ip link set "+bridge+" up",
	)
}

// run carries out commands without arguments that hold spaces.
func run(commands ...string) error {
	for _, command := range commands {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}
	return nil
}
