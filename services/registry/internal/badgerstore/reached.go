package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// reached is a file with the index of the last batch that anybody may have seen. It is written
// before that, and not synced: it outlives the process. After a power failure it may name an index
// that the log never had on this disk.
type reached struct{ file *os.File }

const reachedFile = "konsul-reached"

// openReached opens the file and returns the index in it, 0 when there is none.
func openReached(dir string) (reached, uint64, error) {
	file, err := os.OpenFile(filepath.Join(dir, reachedFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return reached{}, 0, fmt.Errorf("open the reached index: %w", err)
	}
	var index [8]byte
	if _, err := file.ReadAt(index[:], 0); errors.Is(err, io.EOF) {
		return reached{file}, 0, nil
	} else if err != nil {
		return reached{}, 0, errors.Join(fmt.Errorf("read the reached index: %w", err), file.Close())
	}
	return reached{file}, binary.BigEndian.Uint64(index[:]), nil
}

func (r reached) note(index uint64) error {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], index)
	if _, err := r.file.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("write the reached index: %w", err)
	}
	return nil
}
