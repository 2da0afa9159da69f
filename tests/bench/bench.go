package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"konsul.dev/tests/bench/load"
	"konsul.dev/tests/bench/report"
	"konsul.dev/tests/bench/target"
)

// Options say what is run.
type Options struct {
	// Lines to measure.
	Lines []string
	// Clients are the numbers of clients for the lines that have clients.
	Clients []int
	// Duration of one measurement, after WarmUp; every series is measured Rounds times, in turns.
	WarmUp, Duration time.Duration
	Rounds           int
	// Keys there are.
	Keys int
	// Times is how often a leader is killed, and a cluster started from nothing.
	Times int
	// Soak is how long the cluster is under load that must not make it elect.
	Soak time.Duration
	// Plaintext also measures what is not ours without TLS.
	Plaintext bool
	// Self is this program. EtcdPath is etcd's; empty: etcd is left out.
	Self, EtcdPath string
	// Rival is another build of this program, whose servers are measured by turns with ours; empty:
	// there is none.
	Rival string
	// Dir is where servers keep their data, on the disk to measure; it is removed at the end.
	Dir string
	// Keep leaves the data and the servers' logs in Dir.
	Keep bool
	// Profiles, if set, is where our servers write a CPU profile for each measurement.
	Profiles string
	// Out takes the tables, Progress what happens meanwhile.
	Out, Progress io.Writer
}

const (
	startLimit = 30 * time.Second
	// hangLimit is how long after its end a measurement may still be going on.
	hangLimit = 30 * time.Second
	fillLimit = 15 * time.Minute
)

// bench is one run.
type bench struct {
	Options
	book     report.Book
	clusters map[clusterKey]*target.Cluster
	// filled says which services a cluster has, by their numbers of instances.
	filled map[*target.Cluster][]int
	// made counts clusters, so that each has a folder of its own.
	made int
}

type clusterKey struct {
	kind      target.Kind
	plaintext bool
	// rival says that it is of the other build.
	rival bool
}

func secure(kind target.Kind) clusterKey { return clusterKey{kind: kind} }
func plain(kind target.Kind) clusterKey  { return clusterKey{kind: kind, plaintext: true} }

// Run measures and prints.
func Run(ctx context.Context, o Options) (err error) {
	chosen, err := choose(o.Lines)
	if err != nil {
		return err
	}
	if o.Dir, err = os.MkdirTemp(o.Dir, "konsul-bench-"); err != nil {
		return fmt.Errorf("make a directory for data: %w", err)
	}
	b := &bench{Options: o, clusters: map[clusterKey]*target.Cluster{}, filled: map[*target.Cluster][]int{}}
	defer func() {
		err = errors.Join(err, b.stop())
		if o.Keep {
			fmt.Fprintf(o.Progress, "data and logs are in %s\n", o.Dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(o.Dir))
	}()
	for _, l := range chosen {
		if err := l.run(ctx, b); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", l.name, err), b.book.Print(o.Out, promises()))
		}
	}
	return b.book.Print(o.Out, promises())
}

// stop ends every server.
func (b *bench) stop() error {
	var errs []error
	for _, c := range b.clusters {
		errs = append(errs, c.Stop())
	}
	return errors.Join(errs...)
}

// cluster returns a running target that holds every key.
func (b *bench) cluster(ctx context.Context, key clusterKey) (*target.Cluster, error) {
	if c := b.clusters[key]; c != nil {
		return c, nil
	}
	c, err := b.prepare(key)
	if err != nil {
		return nil, err
	}
	b.clusters[key] = c
	if err := b.start(ctx, c); err != nil {
		return nil, err
	}
	_, err = b.fill(ctx, load.FillSpec{Access: c.Access(), Keys: b.Keys})
	return c, err
}

// prepare lays out a cluster with nothing in it.
func (b *bench) prepare(key clusterKey) (*target.Cluster, error) {
	b.made++
	self := b.Self
	if key.rival {
		self = b.Rival
	}
	return target.Prepare(key.kind, target.Options{
		Dir: filepath.Join(b.Dir, fmt.Sprintf("%s-%d", key.kind, b.made)), Self: self, EtcdPath: b.EtcdPath, Plaintext: key.plaintext, Profiles: b.Profiles,
	})
}

// start starts a cluster and waits until it serves.
func (b *bench) start(ctx context.Context, c *target.Cluster) error {
	if err := c.Start(); err != nil {
		return err
	}
	return b.ready(ctx, c)
}

func (b *bench) fill(ctx context.Context, spec load.FillSpec) (load.Filled, error) {
	ctx, cancel := context.WithTimeout(ctx, fillLimit)
	defer cancel()
	var took load.Filled
	err := b.generate(ctx, "fill", spec, &took)
	return took, err
}

// ready waits until every server takes writes.
func (b *bench) ready(ctx context.Context, c *target.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if _, err := load.FirstWrites(ctx, c.Access(), len(c.Access().Addresses)); err != nil {
		return fmt.Errorf("%s does not serve: %w", c.Name, err)
	}
	return nil
}

// generate runs this program as load generator.
func (b *bench) generate(ctx context.Context, command string, spec, result any) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode %s: %w", command, err)
	}
	cmd := exec.CommandContext(ctx, b.Self, command, string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("load generator: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		return fmt.Errorf("load generator answered nonsense: %w", err)
	}
	return nil
}
