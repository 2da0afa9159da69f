//go:build !linux

package raftnode

// dataSync brings a file to its disk.
func dataSync(file systemFile) error { return file.Sync() }
