package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"konsul.dev/tests/bench/load"
	"konsul.dev/tests/bench/report"
	"konsul.dev/tests/bench/target"
)

// contender is a cluster under the name of a series.
type contender struct {
	series string
	clusterKey
}

// contenders are the clusters of this run that replicate, by turns.
func (b *bench) contenders() []contender {
	var out []contender
	for _, c := range []contender{
		{ours, secure(target.Konsul)}, {theirs, secure(target.Etcd)}, {theirs + plaintext, plain(target.Etcd)},
	} {
		if b.runs(c.kind, c.plaintext) {
			out = append(out, c)
		}
	}
	return out
}

// note keeps a sample and tells it.
func (b *bench) note(line, series string, s report.Sample) {
	b.book.Add(report.Cell{Line: line, Series: series}, s)
	fmt.Fprintf(b.Progress, "%s, %s: %v\n", line, series, s)
}

// watch measures how long after a write was acknowledged the last of many watchers of its key hears
// of it.
func watch(ctx context.Context, b *bench) error {
	const watchers, writes = 1000, 100
	for range b.Rounds {
		for _, who := range b.contenders() {
			cluster, err := b.cluster(ctx, who.clusterKey)
			if err != nil {
				return err
			}
			var r load.WatchResult
			spec := load.WatchSpec{Access: cluster.Access(), Watchers: watchers, Writes: writes, Limit: watchLimit}
			stop, err := b.profile(cluster, who.kind, "watch")
			if err != nil {
				return err
			}
			if err := errors.Join(b.generate(ctx, "watch", spec, &r), stop()); err != nil {
				return fmt.Errorf("%s: %w", who.series, err)
			}
			b.note("watch", who.series, report.Sample{report.P50: r.P50.Seconds(), report.P99: r.P99.Seconds()})
		}
	}
	return nil
}

const (
	watchLimit = time.Minute
	// comeback is how long a cluster may take to serve again.
	comeback = 30 * time.Second
)

// failover measures the time from the sudden end of the leader to the next acknowledged write.
func failover(ctx context.Context, b *bench) error {
	for range b.Times {
		for _, who := range b.contenders() {
			cluster, err := b.cluster(ctx, who.clusterKey)
			if err != nil {
				return err
			}
			took, err := b.killLeader(ctx, cluster)
			if err != nil {
				return fmt.Errorf("%s: %w", who.series, err)
			}
			b.note("failover", who.series, report.Sample{report.Seconds: took.Seconds()})
		}
	}
	return nil
}

// killLeader kills the leader of a cluster, and starts it again once the others serve.
func (b *bench) killLeader(ctx context.Context, c *target.Cluster) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*comeback)
	defer cancel()
	if err := b.ready(ctx, c); err != nil {
		return 0, err
	}
	leader, err := load.Leader(ctx, c.Access())
	if err != nil {
		return 0, err
	}
	probe, err := load.NewProbe(c.Access())
	if err != nil {
		return 0, err
	}
	defer probe.Close()
	if _, err := probe.FirstWrites(ctx, len(c.Servers)); err != nil {
		return 0, err
	}
	killed := time.Now()
	c.Servers[leader.Server].Kill()
	writes, err := probe.FirstWrites(ctx, 1)
	if err := errors.Join(err, c.Servers[leader.Server].Start()); err != nil {
		return 0, err
	}
	return writes[0].Sub(killed), b.ready(ctx, c)
}

// start measures the time from starting three servers with nothing on their disks to the first
// write.
func start(ctx context.Context, b *bench) error {
	for range b.Times {
		for _, who := range b.contenders() {
			cluster, err := b.prepare(who.clusterKey)
			if err != nil {
				return err
			}
			took, err := b.toFirstWrite(ctx, cluster)
			if err := errors.Join(err, cluster.Stop()); err != nil {
				return fmt.Errorf("%s: %w", who.series, err)
			}
			b.note("start", who.series, report.Sample{report.Seconds: took.Seconds()})
		}
	}
	return nil
}

// toFirstWrite starts a cluster and returns how long it took to take a write.
func (b *bench) toFirstWrite(ctx context.Context, c *target.Cluster) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*comeback)
	defer cancel()
	begin := time.Now()
	if err := c.Start(); err != nil {
		return 0, err
	}
	writes, err := load.FirstWrites(ctx, c.Access(), 1)
	if err != nil {
		return 0, err
	}
	return writes[0].Sub(begin), nil
}

// elections keeps our cluster under load and fails if it elected meanwhile.
func elections(ctx context.Context, b *bench) error {
	const clients = 64
	cluster, err := b.cluster(ctx, secure(target.Konsul))
	if err != nil {
		return err
	}
	before, err := load.Leader(ctx, cluster.Access())
	if err != nil {
		return err
	}
	var r load.Result
	if err := b.generate(ctx, "load", load.Spec{
		Access: cluster.Access(), Op: load.Put, Clients: clients, Keys: b.Keys, Duration: b.Soak, Limit: hangLimit,
	}, &r); err != nil {
		return err
	}
	after, err := load.Leader(ctx, cluster.Access())
	if err != nil {
		return err
	}
	fmt.Fprintf(b.Progress, "elections: %d in %v under %.0f writes a second, %d errors\n", after.Term-before.Term, b.Soak, r.Rate, r.Errors)
	b.book.Add(report.Cell{Line: "elections", Series: ours, Clients: clients}, report.Sample{report.Rate: r.Rate, report.P50: r.P50.Seconds(), report.P99: r.P99.Seconds()})
	if after.Term != before.Term || r.Errors > 0 {
		return fmt.Errorf("%d elections and %d failed writes in %v; the last error: %s", after.Term-before.Term, r.Errors, b.Soak, r.Error)
	}
	return nil
}
