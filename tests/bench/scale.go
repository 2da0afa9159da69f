package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"konsul.dev/tests/bench/load"
	"konsul.dev/tests/bench/report"
	"konsul.dev/tests/bench/target"
)

// Lines of scale: what registering costs, how large clusters grow with their data, and how long
// they take to start with it.
const (
	scaleRegister  = "scale-10k-instances"
	scaleInstances = "scale-100k-instances"
	scaleKeys      = "scale-1m-keys"
	restarted      = " restart"
	backedUp       = " backup"
	restored       = " restore"
)

func scaleLines() []line {
	grown := func(name string, spec load.FillSpec, restart bool) line {
		return line{name: name, long: true, run: func(ctx context.Context, b *bench) error {
			for _, who := range b.contenders() {
				if who.plaintext {
					continue // What is kept does not depend on the wire.
				}
				if err := b.grow(ctx, who, name, spec, restart); err != nil {
					return fmt.Errorf("%s: %w", who.series, err)
				}
			}
			return nil
		}}
	}
	return []line{
		grown(scaleRegister, load.FillSpec{Instances: 10_000}, false),
		grown(scaleInstances, load.FillSpec{Instances: 100_000}, true),
		grown(scaleKeys, load.FillSpec{Keys: 1_000_000}, true),
	}
}

func (b *bench) grow(ctx context.Context, who contender, line string, spec load.FillSpec, restart bool) (err error) {
	c, err := b.prepare(who.clusterKey)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := b.start(ctx, c); err != nil {
		return err
	}
	spec.Access = c.Access()
	took, err := b.fill(ctx, spec)
	if err != nil {
		return err
	}
	if took.Retries > 0 {
		fmt.Fprintf(b.Progress, "%s, %s: %d calls failed at first\n", line, who.series, took.Retries)
	}
	if err := b.noteSize(line, who.series, c, took.Seconds); err != nil {
		return err
	}
	if !restart {
		return nil
	}
	if err := b.save(ctx, c, who, line); err != nil {
		return err
	}
	if err := c.Stop(); err != nil {
		return err
	}
	again, err := b.toFirstWrite(ctx, c)
	if err != nil {
		return err
	}
	return b.noteSize(line+restarted, who.series, c, again.Seconds())
}

// save measures a backup of a cluster and, for ours, what restoring it takes: etcd's restore is a
// program of its own that makes new members.
func (b *bench) save(ctx context.Context, c *target.Cluster, who contender, line string) error {
	path := filepath.Join(b.Dir, "backup")
	note := func(line string, m load.Moved) {
		b.note(line, who.series, report.Sample{report.Seconds: m.Seconds, report.Memory: float64(m.Peak), report.Disk: float64(m.Bytes)})
	}
	made, err := load.Backup(ctx, c.Access(), path)
	if err != nil {
		return err
	}
	note(line+backedUp, made)
	if who.kind == target.Konsul {
		back, err := load.Restore(ctx, c.Access(), path)
		if err != nil {
			return err
		}
		note(line+restored, back)
	}
	return os.Remove(path)
}

func (b *bench) noteSize(line, series string, c *target.Cluster, seconds float64) error {
	resident, err := load.Resident(c.Access().PIDs)
	if err != nil {
		return err
	}
	disk, err := c.Disk()
	if err != nil {
		return err
	}
	b.note(line, series, report.Sample{report.Seconds: seconds, report.Resident: float64(resident), report.Disk: float64(disk)})
	return nil
}
