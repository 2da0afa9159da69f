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
	"slices"
	"strings"

	"konsul.dev/pkg/identity"
	"konsul.dev/tools/lab/internal/secret"
)

// rootsInCA is where a ca writes the federation's trust anchors.
const rootsInCA = "/data/ca/roots.pem"

// Modes of the secrets. The containers run as a user that does not exist on the host, and are
// members of the group of whoever runs the lab (KONSUL_LAB_GID in docker-compose.yml), who makes
// the files.
const (
	ownerOnly = 0o700
	folder    = 0o750
	readable  = 0o640
	public    = 0o644
)

// components are the containers with secrets. Each sees its own folder alone, as /run/konsul.
func components() []string { return append([]string{"ca", "registry"}, identity.KeyComponents()...) }

func (l *Lab) componentDir(dc, component string) string {
	return filepath.Join(l.o.Dir, dc, component)
}

// secretFile returns the file that a component has for its server.secret_file.
func (l *Lab) secretFile(dc, component string) string {
	return filepath.Join(l.componentDir(dc, component), "secret")
}

func (l *Lab) joinTokenFile(dc string) string {
	return filepath.Join(l.componentDir(dc, "ca"), "join-token")
}

func (l *Lab) tokenFile() string {
	return filepath.Join(l.componentDir(datacenters()[0].name, "registry"), "management-token")
}
func (l *Lab) rootsFile(dc string) string { return filepath.Join(l.o.Dir, dc+".roots.pem") }
func (l *Lab) envFile(dc string) string   { return filepath.Join(l.o.Dir, dc+".env") }

// writeSecrets makes what the containers mount: the datacenter secret for ca and registry, for the
// others a key derived from it.
func (l *Lab) writeSecrets() error {
	if err := os.MkdirAll(l.o.Dir, ownerOnly); err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	if err := os.Chmod(l.o.Dir, ownerOnly); err != nil {
		return fmt.Errorf("close the lab's folder to others: %w", err)
	}
	for _, dc := range datacenters() {
		if err := l.writeKeys(dc.name, secret.New()); err != nil {
			return err
		}
	}
	return write(l.tokenFile(), secret.New(), readable)
}

func (l *Lab) writeKeys(dc, datacenterSecret string) error {
	for _, component := range components() {
		dir := l.componentDir(dc, component)
		if err := os.MkdirAll(dir, folder); err != nil {
			return fmt.Errorf("make folder of %s: %w", dc, err)
		}
		if err := os.Chmod(dir, folder); err != nil {
			return fmt.Errorf("open folder of %s to its container: %w", dc, err)
		}
		text := datacenterSecret
		if slices.Contains(identity.KeyComponents(), component) {
			h := identity.Holder{Component: component}
			if component == "agent" {
				h.Node = dc + "-agent" // its KONSUL_SERVER__NODE
			}
			var err error
			if text, err = secret.Key(datacenterSecret, h); err != nil {
				return err
			}
		}
		if err := write(l.secretFile(dc, component), text, readable); err != nil {
			return err
		}
	}
	return nil
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
	return write(l.rootsFile(dc), roots.String(), public)
}

// writeEnv writes the settings for scripts, to be read with `. FILE`.
func (l *Lab) writeEnv(dc datacenter) error {
	token, err := os.ReadFile(l.tokenFile())
	if err != nil {
		return fmt.Errorf("read management token: %w", err)
	}
	return write(l.envFile(dc.name), secret.Env(l.url(dc), string(token), l.rootsFile(dc.name)), readable)
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

// write writes a file with exactly that mode, whatever the umask.
func write(path, text string, mode os.FileMode) error {
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		return fmt.Errorf("write a lab's file: %w", err)
	}
	return nil
}
