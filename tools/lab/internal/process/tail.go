package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// tailBytes is how much of a log's end Tail looks at.
const tailBytes = 16 << 10

// Tail returns the last lines of a file, at most n.
func Tail(path string, n int) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the end of a log: %w", err)
	}
	defer func() { _ = file.Close() }()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return "", fmt.Errorf("read the end of %q: %w", path, err)
	}
	from := max(0, size-tailBytes)
	data, err := io.ReadAll(io.NewSectionReader(file, from, size-from))
	if err != nil {
		return "", fmt.Errorf("read the end of %q: %w", path, err)
	}
	lines := strings.Split(string(bytes.TrimRight(data, "\n")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n"), nil
}
