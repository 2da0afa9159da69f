// Package images builds one container image per service, from static programs and without a
// network.
//
// Each image is built from a folder of its own that holds its one program, so that the engine is
// not sent all of them each time. Build keeps no state.
package images

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Options is what to build from.
type Options struct {
	// Bin is the folder of the static programs.
	Bin string
	// Dockerfile is the path of the one recipe.
	Dockerfile string
	Tag        string
	Out        io.Writer
}

// Image is a program and the name of its image.
type Image struct{ Program, Name string }

// All returns every image. The gateway's name is the ADR's.
func All() []Image {
	return []Image{
		{"konsul-ca", "konsul/ca"},
		{"konsul-registry", "konsul/registry"},
		{"konsul-gateway", "konsul/mesh-gateway"},
		{"konsul-wan-gossip", "konsul/wan-gossip"},
		{"konsul-replicator", "konsul/replicator"},
		{"konsul-failover-router", "konsul/failover-router"},
		{"konsul-agent", "konsul/agent"},
		{"konsul-lab", "konsul/sample"},
	}
}

// Build builds every image with the engine's classic builder.
func Build(ctx context.Context, o Options) error {
	var errs []error
	for _, image := range All() {
		errs = append(errs, checkStatic(filepath.Join(o.Bin, image.Program)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, image := range All() {
		if err := build(ctx, o, image); err != nil {
			return err
		}
		fmt.Fprintf(o.Out, "%s:%s\n", image.Name, o.Tag)
	}
	return nil
}

func build(ctx context.Context, o Options, image Image) (err error) {
	dir, err := os.MkdirTemp("", "konsul-image-")
	if err != nil {
		return fmt.Errorf("make build folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		return fmt.Errorf("make build folder: %w", err)
	}
	if err := link(filepath.Join(o.Bin, image.Program), filepath.Join(dir, image.Program)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "docker", "build", "--quiet",
		"--file", o.Dockerfile, "--build-arg", "BINARY="+image.Program, "--tag", image.Name+":"+o.Tag, dir)
	// The classic builder needs nothing but the engine; BuildKit would ask for a plugin.
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	// The builder praises its successor on each run; only a failure is worth reading.
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build image %s: %w\n%s", image.Name, err, said)
	}
	return nil
}

// link puts a program into the build folder: by hard link, or by copy across file systems.
func link(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	return nil
}

// checkStatic refuses what would not run in an empty image.
func checkStatic(path string) error {
	program, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("no Linux program at %q: build it with CGO_ENABLED=0: %w", path, err)
	}
	defer func() { _ = program.Close() }()
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			return fmt.Errorf("%q needs libraries, which the image has not: build it with CGO_ENABLED=0", path)
		}
	}
	return nil
}
