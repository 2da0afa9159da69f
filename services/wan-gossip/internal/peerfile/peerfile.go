// Package peerfile remembers the gossip addresses of peers over a restart, so that a datacenter
// finds the others even when none of its configured seeds is alive.
//
// The file is a hint: a missing or damaged one costs nothing but time. Load and Save may be called
// concurrently.
package peerfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"konsul.dev/pkg/identity"
)

type content struct {
	Peers []string `json:"peers"`
}

// Load returns the addresses saved at path; none when there is no file.
func Load(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	var c content
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("read peers in %q: %w", path, err)
	}
	return c.Peers, nil
}

// Save replaces the addresses at path.
func Save(path string, peers []string) error {
	peers = slices.Clone(peers)
	slices.Sort(peers)
	data, err := json.Marshal(content{Peers: slices.Compact(peers)})
	if err != nil {
		return fmt.Errorf("write peers: %w", err)
	}
	return identity.WriteFile(path, data)
}
