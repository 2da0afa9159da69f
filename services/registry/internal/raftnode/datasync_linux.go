package raftnode

import (
	"errors"
	"syscall"
)

// dataSync brings what was written to a file to its disk, and its length, and nothing else about
// it: when it was written, say.
func dataSync(file systemFile) error {
	for {
		if err := syscall.Fdatasync(int(file.Fd())); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
