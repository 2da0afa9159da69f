package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"konsul.dev/tests/bench/target"
)

// Spec is one measurement.
type Spec struct {
	Access target.Access
	// Op names what every client does over and over; see operations.
	Op      Op
	Clients int
	// Keys is how many keys there are; operations go through them by turns.
	Keys int
	// Instances is how many the service has that health operations ask for.
	Instances        int
	WarmUp, Duration time.Duration
	// Limit ends a measurement that hangs.
	Limit time.Duration
}

// Result is what a measurement found. It covers what ended inside the window after the warm-up.
type Result struct {
	Ops    int
	Errors int
	// Error is one of the errors.
	Error string
	// Rate is operations per second.
	Rate float64
	// CPU is microseconds of processor time of all servers for each operation.
	CPU float64
	// Peak is the sum of the servers' peak resident memory during the measurement, in bytes.
	Peak uint64
	// P50 and P99 are latencies.
	P50, P99 time.Duration
}

// client counts what one client saw.
type client struct {
	latencies []time.Duration
	errors    int
	err       error
}

// Run carries a measurement out.
func Run(ctx context.Context, spec Spec) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(spec.WarmUp+spec.Duration+spec.Limit, cancel).Stop()
	driver, err := open(spec.Access, spec.Op, spec.Instances)
	if err != nil {
		return Result{}, err
	}
	defer driver.close()
	if err := resetPeaks(spec.Access.PIDs); err != nil {
		return Result{}, err
	}
	window := newWindow(spec)
	clients := make([]client, spec.Clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { clients[i].run(ctx, driver.op, i, spec, window) })
	}
	used, err := window.measure(spec.Access.PIDs)
	wg.Wait()
	if err != nil {
		return Result{}, err
	}
	result := summarise(clients, spec.Duration, used)
	if result.Peak, err = peak(spec.Access.PIDs); err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return result, fmt.Errorf("%s of %s did not end in time: %w", spec.Op, spec.Access.Kind, err)
	}
	return result, nil
}

// run calls op until the window has passed. Clients begin at different keys and different servers.
func (c *client) run(ctx context.Context, op operation, i int, spec Spec, w window) {
	server, key := i, i*(spec.Keys/spec.Clients+1)
	c.latencies = make([]time.Duration, 0, 1<<12)
	for begin := time.Now(); begin.Before(w.end) && ctx.Err() == nil; {
		err := op(ctx, server%len(spec.Access.Addresses), key%spec.Keys)
		end := time.Now()
		if err != nil {
			c.errors, c.err = c.errors+1, err
		} else if w.contains(end) {
			c.latencies = append(c.latencies, end.Sub(begin))
		}
		server, key, begin = server+1, key+1, end
	}
}

// window is when it counts.
type window struct{ begin, end time.Time }

func newWindow(spec Spec) window {
	begin := time.Now().Add(spec.WarmUp)
	return window{begin: begin, end: begin.Add(spec.Duration)}
}

func (w window) contains(t time.Time) bool { return !t.Before(w.begin) && t.Before(w.end) }

// measure waits until the window has passed and returns how much processor time was used in it.
func (w window) measure(pids []int) (time.Duration, error) {
	<-time.After(time.Until(w.begin))
	before, err := cpu(pids)
	if err != nil {
		return 0, err
	}
	<-time.After(time.Until(w.end))
	after, err := cpu(pids)
	return after - before, err
}

func summarise(clients []client, over, used time.Duration) Result {
	var r Result
	var all []time.Duration
	for _, c := range clients {
		all = append(all, c.latencies...)
		r.Errors += c.errors
		if c.err != nil {
			r.Error = c.err.Error()
		}
	}
	r.Ops = len(all)
	r.Rate = float64(r.Ops) / over.Seconds()
	if r.Ops > 0 {
		r.CPU = float64(used.Microseconds()) / float64(r.Ops)
	}
	r.P50, r.P99 = Percentile(all, 50), Percentile(all, 99)
	return r
}
