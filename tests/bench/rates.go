package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"konsul.dev/tests/bench/load"
	"konsul.dev/tests/bench/report"
	"konsul.dev/tests/bench/target"
)

// series is one column of a line: an operation against a target.
type series struct {
	name string
	clusterKey
	op load.Op
}

// besideRival returns the series with one of the other build behind each of ours.
func besideRival(all []series) []series {
	var out []series
	for _, s := range all {
		out = append(out, s)
		if s.kind == target.Konsul {
			s.name, s.rival = s.name+rival, true
			out = append(out, s)
		}
	}
	return out
}

// rates is a line about operations per second with a number of clients.
type rates struct {
	name   string
	series []series
	// clients, if set, are the only numbers of clients it is measured with.
	clients []int
	// instances is how many the service has that is asked for; zero: none is.
	instances int
}

// run measures, for every number of clients, all series in turns, several times.
func (l rates) run(ctx context.Context, b *bench) error {
	if b.Rival != "" {
		l.series = besideRival(l.series)
	}
	for _, clients := range b.Clients {
		if len(l.clients) > 0 && !slices.Contains(l.clients, clients) {
			continue
		}
		for round := range b.Rounds {
			for _, s := range l.series {
				if !b.runs(s.kind, s.plaintext) {
					continue
				}
				if err := l.measure(ctx, b, s, clients, round); err != nil {
					return fmt.Errorf("%s with %d clients: %w", s.name, clients, err)
				}
			}
		}
	}
	return nil
}

// runs reports whether this run compares with a target.
func (b *bench) runs(kind target.Kind, plaintext bool) bool {
	return (!plaintext || b.Plaintext) && (kind != target.Etcd || b.EtcdPath != "")
}

func (l rates) measure(ctx context.Context, b *bench, s series, clients, round int) error {
	cluster, err := b.cluster(ctx, s.clusterKey)
	if err != nil {
		return err
	}
	if err := b.register(ctx, cluster, l.instances); err != nil {
		return err
	}
	stop, err := b.profile(cluster, s.kind, fmt.Sprintf("%s-%s-%s-%d-round%d", l.name, s.name, s.op, clients, round+1))
	if err != nil {
		return err
	}
	var r load.Result
	err = b.generate(ctx, "load", load.Spec{
		Access: cluster.Access(), Op: s.op, Clients: clients, Keys: b.Keys, Instances: l.instances,
		WarmUp: b.WarmUp, Duration: b.Duration, Limit: hangLimit,
	}, &r)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	if r.Errors > 0 {
		return fmt.Errorf("%d calls failed, such as: %s", r.Errors, r.Error)
	}
	fmt.Fprintf(b.Progress, "%s, %d clients, %s: %.0f/s, %.1f us CPU, %d MiB\n", l.name, clients, s.name, r.Rate, r.CPU, r.Peak>>20)
	b.book.Add(report.Cell{Line: l.name, Series: s.name, Clients: clients}, report.Sample{
		report.Rate: r.Rate, report.CPU: r.CPU, report.Memory: float64(r.Peak), report.P50: r.P50.Seconds(), report.P99: r.P99.Seconds(),
	})
	return nil
}

// profile makes our servers write CPU profiles, if that is wanted, until stop.
func (b *bench) profile(c *target.Cluster, kind target.Kind, name string) (stop func() error, err error) {
	if kind != target.Konsul || b.Profiles == "" {
		return func() error { return nil }, nil
	}
	return c.Profile(name)
}

// register makes sure that a cluster has the service with so many instances.
func (b *bench) register(ctx context.Context, c *target.Cluster, instances int) error {
	if instances == 0 || slices.Contains(b.filled[c], instances) {
		return nil
	}
	if _, err := b.fill(ctx, load.FillSpec{Access: c.Access(), Instances: instances}); err != nil {
		return err
	}
	b.filled[c] = append(b.filled[c], instances)
	return nil
}
