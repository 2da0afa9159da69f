package arena

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/registry"
)

const (
	datacenter   = "arena"
	portGRPC     = ":8502"
	portRaft     = ":8300"
	specVariable = "KONSUL_ARENA_SPEC"
	stopLimit    = 10 * time.Second
)

// spec is what a server is told.
type spec struct {
	ID, Address, DataDir, Token, Papers string
	// Servers are the members of a cluster that begins; Join is whom to ask for one that exists.
	Servers []registry.Server
	Join    []string
}

// serve is the process of a server.
func serve() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := serveSpec(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "server ended:", err)
		return 1
	}
	return 0
}

func serveSpec(ctx context.Context) error {
	var s spec
	if err := readJSON(os.Getenv(specVariable), &s); err != nil {
		return err
	}
	source, err := readPapers(s.Papers)
	if err != nil {
		return err
	}
	telemetry := obs.New(registry.DefaultConfig().Telemetry, "konsul-registry", datacenter, os.Stderr, nil)
	var delay atomic.Int64
	failed := make(chan error, 1)
	service, err := registry.New(s.config(), registry.Deps{
		Telemetry: telemetry, Clock: clock.System(), Version: "arena", Identity: source,
		Fail: func(err error) { failed <- err },
		Step: func(step string) {
			// What is slow about a slow disk is to have data on it for sure.
			if step == "log/begin" || step == "sync/begin" {
				<-time.After(time.Duration(delay.Load()))
			}
		},
	})
	if err != nil {
		return err
	}
	if err := service.Start(ctx); err != nil {
		return err
	}
	told := make(chan error, 1)
	go func() { told <- obey(&delay) }()
	select {
	case err = <-failed:
	case err = <-told:
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	return errors.Join(err, service.Stop(end))
}

// config takes snapshots and truncates the log every few hundred writes, so that runs of seconds
// meet all of it.
func (s spec) config() registry.Config {
	cfg := registry.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.PrimaryDatacenter, cfg.Server.Node, cfg.Server.DataDir, cfg.Server.SecretFile = datacenter, datacenter, s.ID, s.DataDir, "unused"
	r := &cfg.Registry
	r.ID, r.Listen, r.RaftListen, r.InitialManagementTokenFile = s.ID, s.Address+portGRPC, s.Address+portRaft, s.Token
	r.GatewayAddresses = []string{s.Address + ":8443"}
	r.Servers, r.Join = s.Servers, s.Join
	r.Raft.SegmentBytes, r.Raft.SnapshotBytes, r.Raft.TrailingBytes, r.Raft.TrailingLogs = 1<<20, 1<<20, 64<<10, 128
	return cfg
}

// obey reads how slow the disk is to be, until there is nobody to say it.
func obey(delay *atomic.Int64) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		d, err := time.ParseDuration(strings.TrimPrefix(lines.Text(), "slow "))
		if err != nil {
			return fmt.Errorf("told %q: %w", lines.Text(), err)
		}
		delay.Store(int64(d))
	}
	return errors.Join(lines.Err(), errors.New("the test is gone"))
}
