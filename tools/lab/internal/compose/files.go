package compose

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"konsul.dev/tools/lab/internal/secret"
)

// rootsInCA is where a ca writes the federation's trust anchors.
const rootsInCA = "/data/ca/roots.pem"

// Modes of the secrets' folder. The containers run as a user that does not exist on the host, so the
// files are readable by all, inside a folder that only its owner may enter; a bind mount does not
// pass through that folder.
const (
	ownerOnly = 0o700
	folder    = 0o755
	readable  = 0o644
)

func (l *Lab) secretFile(dc string) string    { return filepath.Join(l.o.Dir, dc, "secret") }
func (l *Lab) joinTokenFile(dc string) string { return filepath.Join(l.o.Dir, dc, "join-token") }
func (l *Lab) tokenFile() string {
	return filepath.Join(l.o.Dir, datacenters()[0].name, "management-token")
}
func (l *Lab) rootsFile(dc string) string { return filepath.Join(l.o.Dir, dc+".roots.pem") }
func (l *Lab) envFile(dc string) string   { return filepath.Join(l.o.Dir, dc+".env") }

// writeSecrets makes what the containers mount.
func (l *Lab) writeSecrets() error {
	if err := os.MkdirAll(l.o.Dir, ownerOnly); err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	if err := os.Chmod(l.o.Dir, ownerOnly); err != nil {
		return fmt.Errorf("close the lab's folder to others: %w", err)
	}
	for _, dc := range datacenters() {
		if err := os.MkdirAll(filepath.Dir(l.secretFile(dc.name)), folder); err != nil {
			return fmt.Errorf("make folder of %s: %w", dc.name, err)
		}
		if err := write(l.secretFile(dc.name), secret.New()); err != nil {
			return err
		}
	}
	return write(l.tokenFile(), secret.New())
}

// fetchRoots copies the trust anchors out of a datacenter's ca.
func (l *Lab) fetchRoots(ctx context.Context, dc string) error {
	id, err := l.project.container(ctx, dc+"-ca")
	if err != nil {
		return err
	}
	archive, err := docker(ctx, "cp", id+":"+rootsInCA, "-")
	if err != nil {
		return err
	}
	reader := tar.NewReader(strings.NewReader(archive))
	if _, err := reader.Next(); err != nil {
		return fmt.Errorf("unpack trust anchors: %w", err)
	}
	var roots bytes.Buffer
	// A file of trust anchors is a few kilobytes.
	if _, err := io.Copy(&roots, io.LimitReader(reader, 1<<20)); err != nil {
		return fmt.Errorf("unpack trust anchors: %w", err)
	}
	return write(l.rootsFile(dc), roots.String())
}

// writeEnv writes the settings for scripts, to be read with `. FILE`.
func (l *Lab) writeEnv(dc datacenter) error {
	token, err := os.ReadFile(l.tokenFile())
	if err != nil {
		return fmt.Errorf("read management token: %w", err)
	}
	return write(l.envFile(dc.name), secret.Env(l.url(dc), string(token), l.rootsFile(dc.name)))
}

// removeFiles removes everything a compose lab makes, and nothing else.
func (l *Lab) removeFiles() error {
	var errs []error
	for _, dc := range datacenters() {
		for _, path := range []string{filepath.Join(l.o.Dir, dc.name), l.rootsFile(dc.name), l.envFile(dc.name)} {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	// Only an empty folder goes; a user may have put something there.
	if entries, err := os.ReadDir(l.o.Dir); err == nil && len(entries) == 0 {
		errs = append(errs, os.Remove(l.o.Dir))
	}
	return errors.Join(errs...)
}

func write(path, text string) error {
	if err := os.WriteFile(path, []byte(text), readable); err != nil {
		return fmt.Errorf("write a lab's file: %w", err)
	}
	return nil
}
