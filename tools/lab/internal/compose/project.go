// Package compose runs the lab in containers: it makes the secrets, starts the primary's
// containers, has it admit the others, starts those, and takes everything down again.
//
// It speaks to the containers by their ports published on 127.0.0.1 and through the docker program,
// never to a container's own address. A Lab is used by one caller at a time.
package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Project is one docker-compose project.
type Project struct {
	// File is the path of docker-compose.yml.
	File string
	// Name is the project's name, the prefix of its containers.
	Name string
	// Env is added to the environment, for the file's variables.
	Env []string
	// Log receives what docker-compose says.
	Log io.Writer

	command []string
}

// find returns how docker-compose is called here: version 1's program, or version 2's plugin.
func find(ctx context.Context) ([]string, error) {
	if path, err := exec.LookPath("docker-compose"); err == nil {
		return []string{path}, nil
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		return nil, errors.New("neither docker-compose nor docker is installed: install Docker with compose")
	}
	if err := exec.CommandContext(ctx, docker, "compose", "version").Run(); err != nil {
		return nil, fmt.Errorf("docker has no compose plugin: install it, or docker-compose: %w", err)
	}
	return []string{docker, "compose"}, nil
}

// run calls docker-compose.
func (p *Project) run(ctx context.Context, args ...string) error {
	cmd, err := p.prepare(ctx, args...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("docker-compose %s: %w", strings.Join(args, " "), errors.Join(context.Cause(ctx), err))
	}
	return nil
}

func (p *Project) prepare(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if p.command == nil {
		command, err := find(ctx)
		if err != nil {
			return nil, err
		}
		p.command = command
	}
	all := append(append([]string(nil), p.command[1:]...), "-f", p.File, "-p", p.Name)
	cmd := exec.CommandContext(ctx, p.command[0], append(all, args...)...)
	cmd.Env = append(os.Environ(), p.Env...)
	// An interrupt of the lab must not tear docker-compose down half-way.
	cmd.SysProcAttr = apart()
	return cmd, nil
}

// container returns the id of a service's container. Docker itself is asked: a busy machine may
// take longer to start docker-compose than a look at the lab may take.
func (p *Project) container(ctx context.Context, service string) (string, error) {
	printed, err := docker(ctx, "ps", "-q", "--filter", "label=com.docker.compose.project="+p.Name,
		"--filter", "label=com.docker.compose.service="+service)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(printed)
	if id == "" {
		return "", fmt.Errorf("service %s has no container: is the compose lab up?", service)
	}
	return id, nil
}

// docker calls the docker program and returns what it printed.
func docker(ctx context.Context, args ...string) (string, error) {
	return output(exec.CommandContext(ctx, "docker", args...))
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
