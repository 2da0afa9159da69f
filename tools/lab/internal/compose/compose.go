package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"konsul.dev/tools/lab/internal/plan"
	"konsul.dev/tools/lab/internal/ready"
	"konsul.dev/tools/lab/internal/show"
)

// downTimeout bounds the end.
const downTimeout = 2 * time.Minute

// Options is how to run a lab in containers.
type Options struct {
	// Dir is the folder for secrets and env files; absolute.
	Dir string
	// File is the path of docker-compose.yml.
	File string
	// Project is the docker-compose project's name.
	Project string
	// Timeout bounds the way to `lab ready`.
	Timeout time.Duration
	// Connect returns a client of the edge at url.
	Connect func(url, tokenFile, rootsFile string) (ready.Federation, error)
	// Bin is the folder of konsulctl, for the commands to try.
	Bin string
	// Lookup returns an environment variable, e.g. os.Getenv.
	Lookup func(string) string
	Out    io.Writer
	Err    io.Writer
}

// Lab is a federation in containers.
type Lab struct {
	o       Options
	project *Project
}

// datacenter is a datacenter of docker-compose.yml and the port it publishes unless told otherwise.
type datacenter struct {
	name string
	port string
}

// datacenters returns what docker-compose.yml holds, the primary first.
func datacenters() []datacenter {
	return []datacenter{{"us-east", "18500"}, {"us-west", "28500"}, {"eu-central", "38500"}}
}

func names() []string {
	var names []string
	for _, dc := range datacenters() {
		names = append(names, dc.name)
	}
	return names
}

// services returns the compose services of a datacenter.
func (dc datacenter) services() []string {
	var services []string
	for _, suffix := range append([]string{
		"ca", "registry", "gateway", "wan-gossip", "replicator", "failover-router", "agent",
	}, plan.SampleNames()...) {
		services = append(services, dc.name+"-"+suffix)
	}
	return services
}

// New returns a lab in containers; nothing is started.
func New(o Options) *Lab {
	return &Lab{o: o, project: &Project{
		File: o.File, Name: o.Project, Log: o.Err,
		Env: []string{"KONSUL_LAB_DIR=" + o.Dir, "KONSUL_LAB_GID=" + strconv.Itoa(os.Getgid())},
	}}
}

// url returns where a datacenter's edge is published.
func (l *Lab) url(dc datacenter) string {
	port := dc.port
	name := "KONSUL_" + strings.ToUpper(strings.ReplaceAll(dc.name, "-", "_")) + "_HTTP_PORT"
	if chosen := l.o.Lookup(name); chosen != "" {
		port = chosen
	}
	return "https://127.0.0.1:" + port
}

// Up runs the lab until ctx ends or it cannot come up, then takes it down.
func (l *Lab) Up(ctx context.Context) (err error) {
	// What a lab that was killed left behind would carry another federation's data.
	if err := l.Down(ctx); err != nil {
		return err
	}
	net, err := l.chooseNet(ctx)
	if err != nil {
		return err
	}
	l.project.Env = append(l.project.Env, "KONSUL_NET="+net)
	if err := l.writeSecrets(); err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
		defer cancel()
		err = errors.Join(err, l.Down(down))
	}()
	if err := l.bringUp(ctx); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted before the lab was ready")
		}
		logs, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
		defer cancel()
		return errors.Join(err, l.project.run(logs, "ps"), l.project.run(logs, "logs", "--tail", "15"))
	}
	if err := l.announce(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintln(l.o.Out, "stopping")
	return nil
}

func (l *Lab) bringUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.o.Timeout, fmt.Errorf("not ready within %s (--timeout)", l.o.Timeout))
	defer cancel()
	primary, others := datacenters()[0], datacenters()[1:]
	fmt.Fprintf(l.o.Out, "starting %s, the primary, on %s\n", primary.name, l.url(primary))
	if err := l.start(ctx, primary); err != nil {
		return err
	}
	if err := l.asking(primary, func(client ready.Federation) error { return l.admit(ctx, client) }); err != nil {
		return err
	}
	var services []string
	for _, dc := range others {
		fmt.Fprintf(l.o.Out, "starting %s on %s\n", dc.name, l.url(dc))
		services = append(services, dc.services()...)
	}
	if err := l.project.run(ctx, append([]string{"up", "-d"}, services...)...); err != nil {
		return err
	}
	for _, dc := range others {
		if err := l.awaitServing(ctx, dc); err != nil {
			return err
		}
	}
	for _, dc := range datacenters() {
		if err := l.asking(dc, func(client ready.Federation) error {
			return ready.Await(ctx, dc.name+": every datacenter alive in its gossip", func(ctx context.Context) error {
				return ready.Connected(ctx, client, names())
			}, nil)
		}); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) start(ctx context.Context, dc datacenter) error {
	if err := l.project.run(ctx, append([]string{"up", "-d"}, dc.services()...)...); err != nil {
		return err
	}
	return l.awaitServing(ctx, dc)
}

func (l *Lab) awaitServing(ctx context.Context, dc datacenter) error {
	if err := ready.Await(ctx, dc.name+": its ca having a root of trust", func(ctx context.Context) error {
		return l.fetchRoots(ctx, dc.name)
	}, nil); err != nil {
		return err
	}
	if err := l.writeEnv(dc); err != nil {
		return err
	}
	return l.asking(dc, func(client ready.Federation) error {
		what := dc.name + ": its edge taking the management token, and its samples healthy"
		return ready.Await(ctx, what, func(ctx context.Context) error { return ready.Serves(ctx, client, plan.SampleNames()) }, nil)
	})
}

// admit makes the join tokens of the secondaries.
func (l *Lab) admit(ctx context.Context, primary ready.Federation) error {
	for _, dc := range datacenters()[1:] {
		token, err := primary.CreateJoinToken(ctx, dc.name)
		if err != nil {
			return fmt.Errorf("make join token of %s: %w", dc.name, err)
		}
		if err := write(l.joinTokenFile(dc.name), token+"\n", readable); err != nil {
			return err
		}
	}
	return nil
}

// asking lends ask a client of a datacenter's edge.
func (l *Lab) asking(dc datacenter, ask func(ready.Federation) error) error {
	client, err := l.o.Connect(l.url(dc), l.tokenFile(), l.rootsFile(dc.name))
	if err != nil {
		return err
	}
	return errors.Join(ask(client), client.Close())
}

// announce prints the federation, what to try, and the line that scripts wait for.
func (l *Lab) announce(ctx context.Context) error {
	var members []ready.Member
	if err := l.asking(datacenters()[0], func(client ready.Federation) (err error) {
		members, err = client.Datacenters(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("ask for the federation: %w", err)
	}
	var rows []show.Row
	for i, dc := range datacenters() {
		row := show.Row{Name: dc.name, Primary: i == 0, URL: l.url(dc), State: "unknown", Processes: len(dc.services())}
		for _, m := range members {
			if m.Name == dc.name && m.Alive {
				row.State, row.RoundTrip, row.Measured = "alive", m.RoundTrip, m.RoundTrip > 0
			}
		}
		rows = append(rows, row)
	}
	show.Federation(l.o.Out, rows)
	show.Try(l.o.Out, l.o.Dir, l.o.Bin)
	fmt.Fprintln(l.o.Out, "lab ready")
	return nil
}
