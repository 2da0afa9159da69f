package target

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/konsulfx"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/registry"
)

// ServeSpec is what a registry server of a benchmark is told.
type ServeSpec struct {
	// Own is the place of this server among Members.
	Own                int
	Members            []Member
	DataDir, TokenFile string
	Credentials        Credentials
	// Profiles, if set, is where CPU profiles go.
	Profiles string
}

// Member is one server of a cluster.
type Member struct{ ID, Raft, Address string }

// drainLimit is how long a server may take to stop.
const drainLimit = 10 * time.Second

// Serve runs one registry server with its shipped defaults until ctx or control ends. Lines on
// control start and stop CPU profiles.
func Serve(ctx context.Context, spec ServeSpec, control io.Reader) error {
	konsulfx.SetGC()
	source, err := spec.Credentials.source()
	if err != nil {
		return err
	}
	own := spec.Members[spec.Own]
	cfg := registry.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.Node, cfg.Server.DataDir, cfg.Server.SecretFile = datacenter, own.ID, spec.DataDir, "unused"
	cfg.Registry.Listen, cfg.Registry.RaftListen, cfg.Registry.InitialManagementTokenFile = own.Address, own.Raft, spec.TokenFile
	for _, m := range spec.Members {
		cfg.Registry.Servers = append(cfg.Registry.Servers, registry.Server{ID: m.ID, RaftAddress: m.Raft, Address: m.Address})
	}
	telemetry := obs.New(cfg.Telemetry, "konsul-registry", datacenter, os.Stderr, nil)
	failed := make(chan error, 1)
	service, err := registry.New(cfg, registry.Deps{
		Telemetry: telemetry, Clock: clock.System(), Version: "bench", Identity: source, Fail: func(err error) { failed <- err },
	})
	if err != nil {
		return err
	}
	if err := service.Start(ctx); err != nil {
		return err
	}
	told := make(chan error, 1)
	go func() { told <- listen(control, spec.Profiles) }()
	select {
	case err = <-failed:
	case err = <-told:
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	return errors.Join(err, service.Stop(end))
}

// listen carries out commands until there are no more.
func listen(control io.Reader, dir string) error {
	lines := bufio.NewScanner(control)
	var profile *os.File
	for lines.Scan() {
		command, name, _ := strings.Cut(lines.Text(), " ")
		switch {
		case command == "start" && profile == nil:
			var err error
			if profile, err = os.Create(filepath.Join(dir, name+".pprof")); err != nil {
				return fmt.Errorf("open profile: %w", err)
			}
			if err := pprof.StartCPUProfile(profile); err != nil {
				return fmt.Errorf("start profile: %w", err)
			}
		case command == "stop" && profile != nil:
			pprof.StopCPUProfile()
			if err := profile.Close(); err != nil {
				return fmt.Errorf("write profile: %w", err)
			}
			profile = nil
			if err := writeHeap(filepath.Join(dir, name+".heap.pprof")); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown command %q", lines.Text())
		}
	}
	return lines.Err()
}

// writeHeap writes what is alive after a collection, and what was allocated since the start.
func writeHeap(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("open heap profile: %w", err)
	}
	runtime.GC()
	return errors.Join(pprof.WriteHeapProfile(file), file.Close())
}
