package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc on Linux, whatever the kernel's own clock.
const tick = 10 * time.Millisecond

// cpu returns the processor time of processes so far.
func cpu(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		used, err := parseStat(text)
		if err != nil {
			return 0, fmt.Errorf("read processor time of %d: %w", pid, err)
		}
		sum += used
	}
	return sum, nil
}

// parseStat adds user and system time, the 14th and 15th field; the second, a name, may hold
// spaces.
func parseStat(text []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	const user, system = 14 - 3, 15 - 3
	if end < 0 || len(fields) <= system {
		return 0, errors.New("stat has too few fields")
	}
	var ticks int64
	for _, field := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// resetPeaks makes peaks count from now on.
func resetPeaks(pids []int) error {
	for _, pid := range pids {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return fmt.Errorf("reset peak memory: %w", err)
		}
	}
	return nil
}

// peak returns the sum of the processes' peak resident memory in bytes.
func peak(pids []int) (uint64, error) { return memory(pids, "VmHWM:") }

// Resident returns the sum of the processes' resident memory in bytes.
func Resident(pids []int) (uint64, error) { return memory(pids, "VmRSS:") }

func memory(pids []int, field string) (uint64, error) {
	var sum uint64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, fmt.Errorf("read memory: %w", err)
		}
		bytes, err := parseMemory(string(text), field)
		if err != nil {
			return 0, fmt.Errorf("read memory of %d: %w", pid, err)
		}
		sum += bytes
	}
	return sum, nil
}

func parseMemory(status, field string) (uint64, error) {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, field)
		if !ok {
			continue
		}
		kilobytes, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s %w", field, err)
		}
		return kilobytes << 10, nil
	}
	return 0, fmt.Errorf("status says no %s", field)
}
