// Command konsul-bench measures the registry beside etcd; `make bench-registry` runs it. It is also
// the servers and the load generator of its own measurements, each a process of this program with
// another command.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"konsul.dev/tests/bench"
	"konsul.dev/tests/bench/load"
	"konsul.dev/tests/bench/target"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "konsul-bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 || strings.HasPrefix(args[0], "-") {
		return measure(ctx, args)
	}
	switch command, spec := args[0], []byte(args[1]); command {
	case "serve":
		return told(spec, func(s target.ServeSpec) error { return target.Serve(ctx, s, os.Stdin) })
	case "limit":
		return told(spec, func(s target.LimitSpec) error { return target.ServeLimit(ctx, s, os.Stdin) })
	case "fill":
		return told(spec, func(s load.FillSpec) error { return tell(load.Fill(ctx, s)) })
	case "load":
		return told(spec, func(s load.Spec) error { return tell(load.Run(ctx, s)) })
	case "watch":
		return told(spec, func(s load.WatchSpec) error { return tell(load.Watch(ctx, s)) })
	default:
		return fmt.Errorf("unknown command %q; see -help", command)
	}
}

func told[T any](text []byte, do func(T) error) error {
	var spec T
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	return do(spec)
}

// tell prints the result for the process that asked.
func tell[T any](result T, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func measure(ctx context.Context, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	o := bench.Options{Self: self, Out: os.Stdout, Progress: os.Stderr}
	flags := flag.NewFlagSet("konsul-bench", flag.ContinueOnError)
	all, usual := bench.LineNames()
	lines := flags.String("lines", strings.Join(usual, ","), "measure these `lines` of "+strings.Join(all, ","))
	clients := flags.String("clients", "1,16,64,256", "with so many `clients`")
	flags.DurationVar(&o.Duration, "duration", 3*time.Second, "how long one measurement takes")
	flags.DurationVar(&o.WarmUp, "warmup", 500*time.Millisecond, "how long it warms up before")
	flags.IntVar(&o.Rounds, "rounds", 3, "measure every series so often, in turns; medians count")
	flags.IntVar(&o.Keys, "keys", 10_000, "how many keys there are")
	flags.IntVar(&o.Times, "times", 5, "how often failover kills a leader, and start starts a cluster")
	flags.DurationVar(&o.Soak, "soak", time.Hour, "how long elections keeps our cluster under load")
	flags.BoolVar(&o.Plaintext, "plaintext", true, "measure etcd and the limit without TLS too")
	flags.StringVar(&o.EtcdPath, "etcd", ".tools/etcd", "etcd's program; empty: leave etcd out")
	flags.StringVar(&o.Rival, "rival", "", "another build of this `program`: rates of its servers are measured by turns with ours")
	flags.StringVar(&o.Dir, "dir", "", "a `folder` on the disk to measure; default: where temporary files go")
	flags.BoolVar(&o.Keep, "keep", false, "leave the data and the servers' logs behind")
	flags.StringVar(&o.Profiles, "cpuprofile", "", "write CPU and heap profiles of our servers into this `folder`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.Lines, o.Clients, err = lists(*lines, *clients); err != nil {
		return err
	}
	if err := atLeastOne(o); err != nil {
		return err
	}
	if o.Profiles != "" {
		if o.Profiles, err = filepath.Abs(o.Profiles); err != nil {
			return fmt.Errorf("find %s: %w", o.Profiles, err)
		}
		if err := os.MkdirAll(o.Profiles, 0o755); err != nil {
			return fmt.Errorf("make a folder for profiles: %w", err)
		}
	}
	if o.Rival != "" {
		if o.Rival, err = exec.LookPath(o.Rival); err != nil {
			return fmt.Errorf("find the rival: %w", err)
		}
	}
	if o.EtcdPath != "" {
		if o.EtcdPath, err = filepath.Abs(o.EtcdPath); err != nil {
			return fmt.Errorf("find etcd: %w", err)
		}
		if _, err := os.Stat(o.EtcdPath); err != nil {
			return fmt.Errorf("find etcd: %w (`make .tools/.etcd` builds it, -etcd '' leaves it out)", err)
		}
	}
	return bench.Run(ctx, o)
}

// atLeastOne refuses what would measure nothing.
func atLeastOne(o bench.Options) error {
	var errs []error
	for name, n := range map[string]int64{
		"rounds": int64(o.Rounds), "keys": int64(o.Keys), "times": int64(o.Times), "duration": int64(o.Duration), "soak": int64(o.Soak),
	} {
		if n < 1 {
			errs = append(errs, fmt.Errorf("-%s must be more than nothing", name))
		}
	}
	return errors.Join(errs...)
}

func lists(lines, clients string) (names []string, numbers []int, err error) {
	for text := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, nil, fmt.Errorf("-clients %q: %q is no number of clients", clients, text)
		}
		numbers = append(numbers, n)
	}
	return strings.Split(lines, ","), numbers, nil
}
