package robustness_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/tests/robustness/arena"
	"konsul.dev/tests/robustness/history"
)

const (
	servers = 3
	// A run with fewer acknowledged operations a second says nothing.
	leastRate = 40
	// settleLimit is how long a mended cluster may take to be whole.
	settleLimit = 60 * time.Second
	judgeLimit  = 10 * time.Second
	// faultsPerRun fit into a run of the default length.
	faultsPerRun = 4
	defaultRuns  = 3
	defaultTime  = 7 * time.Second
)

func setting[T any](t *testing.T, name string, fallback T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	v, err := parse(text)
	require.NoError(t, err, "%s", name)
	return v
}

func TestRobustness(t *testing.T) {
	arena.Require(t)
	seed := setting(t, "ROBUSTNESS_SEED", rand.Uint64N(1_000_000), func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })
	runs := setting(t, "ROBUSTNESS_RUNS", defaultRuns, strconv.Atoi)
	length := setting(t, "ROBUSTNESS_TIME", defaultTime, time.ParseDuration)
	for i := range runs {
		seed := seed + uint64(i)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { once(t, seed, length) })
	}
}

// chosen are the faults of a seed. Seeds in a row have different ones until all were there.
func chosen(seed uint64, length time.Duration) []breakage {
	list := breakages()
	groups := (len(list) + faultsPerRun - 1) / faultsPerRun
	order := rand.New(rand.NewPCG(seed/uint64(groups), 1)).Perm(len(list))
	count := max(faultsPerRun, int(length/defaultTime)*faultsPerRun)
	var out []breakage
	for i := range count {
		out = append(out, list[order[(int(seed%uint64(groups))*faultsPerRun+i)%len(list)]])
	}
	return out
}

func once(t *testing.T, seed uint64, length time.Duration) {
	//nolint:usetesting // what a failed run leaves must outlive it
	dir, err := os.MkdirTemp("", fmt.Sprintf("konsul-robustness-%d-", seed))
	require.NoError(t, err)
	cluster, err := arena.NewCluster(t, servers, dir)
	require.NoError(t, err)
	recorder := history.NewRecorder(seed)
	defer func() {
		closed := cluster.Close()
		if !t.Failed() {
			require.NoError(t, closed)
			require.NoError(t, os.RemoveAll(dir))
			return
		}
		save(t, recorder.History(), dir)
	}()
	work := &traffic{cluster: cluster, recorder: recorder, seed: seed}
	n := &nemesis{cluster: cluster, recorder: recorder, traffic: work, chance: rand.New(rand.NewPCG(seed, 0))}
	for _, s := range cluster.Servers {
		require.NoError(t, n.start(s))
	}
	settle := func() {
		ctx, cancel := context.WithTimeout(t.Context(), settleLimit)
		defer cancel()
		require.NoError(t, cluster.Settled(ctx), "seed %d: logs are in %s", seed, dir)
	}
	settle()
	require.NoError(t, n.swift(t.Context()))

	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	began := recorder.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work.run(ctx)
	}()
	tormented := n.torment(ctx, chosen(seed, length))
	require.NoError(t, tormented, "seed %d: logs are in %s", seed, dir)
	for _, s := range cluster.Servers {
		require.True(t, s.Running(), "seed %d: %s ended by itself; its log is in %s", seed, s.ID, s.Dir)
	}
	<-done
	took := recorder.Now() - began
	settle()
	work.last(t)

	h := recorder.History()
	rate := float64(h.Acknowledged()) / took.Seconds()
	fenced := 0
	for _, hold := range h.Holds {
		fenced += len(hold.Fenced)
	}
	t.Logf("seed %d: %d operations, %.0f acknowledged a second, %d locks held, %d fenced writes, %s", seed, len(h.Operations), rate, len(h.Holds), fenced, strings.Join(h.Faults, "; "))
	require.GreaterOrEqual(t, rate, float64(leastRate), "the run is invalid: too few operations to say anything")
	require.NotZero(t, fenced, "the run is invalid: nobody wrote under the lock")
	require.NoError(t, verdict(h), "seed %d: history and logs are in %s", seed, dir)
}

// last reads every key everywhere once all is well: whatever was acknowledged must be there.
func (t *traffic) last(test *testing.T) {
	c := &caller{traffic: t, number: callers, chance: rand.New(rand.NewPCG(t.seed, callers)), read: map[string]uint64{}, values: map[string]string{}}
	var keys []string
	for _, o := range t.recorder.History().Operations {
		keys = append(keys, o.Key)
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if strings.HasPrefix(key, "kpair") {
			c.getPair(test.Context(), c.place(), key)
		}
		if strings.HasPrefix(key, "node") {
			for place := range servers {
				c.getNode(test.Context(), place, key, history.Modes()[place%len(history.Modes())])
			}
			continue
		}
		for i, mode := range history.Modes() {
			c.getAt(test.Context(), i%servers, key, mode, 0)
			if mode == history.Stale {
				for place := range servers {
					c.getAt(test.Context(), place, key, mode, 0)
				}
			}
		}
	}
}

// verdict judges a history.
func verdict(h *history.History) error {
	const most = 10 // more say no more
	var errs []error
	for _, mode := range history.Modes() {
		for _, d := range history.Order(h, mode, judgeLimit) {
			errs = append(errs, fmt.Errorf("writes and %s reads: %s", mode, d))
		}
	}
	for _, d := range history.Turns(h, judgeLimit) {
		errs = append(errs, fmt.Errorf("locks: %s", d))
	}
	wrong := slices.Concat(history.Exact(h), history.Atomic(h), history.Exclusive(h))
	return errors.Join(append(errs, wrong[:min(most, len(wrong))]...)...)
}

// save keeps what is needed to understand a failure.
func save(t *testing.T, h *history.History, dir string) {
	errs := []error{h.Save(filepath.Join(dir, "history.json"))}
	for _, mode := range history.Modes() {
		for _, d := range history.Order(h, mode, judgeLimit) {
			errs = append(errs, d.Draw(filepath.Join(dir, fmt.Sprintf("%s-%s.html", mode, d.Key))))
		}
	}
	for _, d := range history.Turns(h, judgeLimit) {
		errs = append(errs, d.Draw(filepath.Join(dir, d.Key+".html")))
	}
	t.Logf("seed %d failed; logs, history.json and pictures are in %s; again: make robustness SEED=%d RUNS=10: %v", h.Seed, dir, h.Seed, errors.Join(errs...))
}
