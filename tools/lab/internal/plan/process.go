package plan

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"konsul.dev/pkg/identity"
	"konsul.dev/tools/lab/internal/process"
)

// Grace periods of a stop. A service drains its connections; a sample has nothing to lose.
const (
	serviceGrace = 20 * time.Second
	sampleGrace  = 3 * time.Second
)

// program is one of konsul's own binaries and the port of its telemetry.
type program struct {
	name      string
	telemetry int
}

// component returns the component that a program is; konsul-dc is all of them, and none.
func (p program) component() string { return strings.TrimPrefix(p.name, "konsul-") }

// sample is a small real service that every datacenter runs.
type sample struct {
	name string
	port int
}

// programs returns the binaries of a datacenter in the order in which they start.
func programs(processes Processes) []program {
	if processes == Single {
		return []program{{"konsul-dc", 8503}}
	}
	return []program{
		{"konsul-ca", 8533},
		{"konsul-registry", 8503},
		{"konsul-gateway", 8543},
		{"konsul-wan-gossip", 8513},
		{"konsul-replicator", 8523},
		{"konsul-failover-router", 8554},
		{"konsul-agent", 8563},
	}
}

func samples() []sample { return []sample{{"payment-api", 9101}, {"api", 9201}} }

// SampleNames returns the services that every datacenter runs as samples.
func SampleNames() []string {
	var names []string
	for _, s := range samples() {
		names = append(names, s.name)
	}
	return names
}

// Programs returns the names of a datacenter's konsul processes.
func (l Layout) Programs() []string {
	var names []string
	for _, p := range programs(l.Processes) {
		names = append(names, p.name)
	}
	return names
}

// Keys returns whose keys a datacenter's processes have in place of its secret.
func (l Layout) Keys(dc Datacenter) []identity.Holder {
	var holders []identity.Holder
	for _, p := range programs(l.Processes) {
		h := identity.Holder{Component: p.component()}
		if !slices.Contains(identity.KeyComponents(), h.Component) {
			continue
		}
		if h.Component == "agent" {
			h.Node = dc.Node()
		}
		holders = append(holders, h)
	}
	return holders
}

// Specs returns the processes of a datacenter in the order in which they start: the samples first,
// so that the agent finds them healthy at its first check.
func (l Layout) Specs(dc Datacenter) []process.Spec {
	var specs []process.Spec
	for _, s := range samples() {
		specs = append(specs, process.Spec{
			Name: s.name, Path: filepath.Join(l.Bin, "konsul-lab"),
			Args:    []string{"sample", "--name", s.name, "--dc", dc.Name, "--listen", dc.Addr(s.port)},
			LogFile: dc.LogFile(s.name), Grace: sampleGrace,
		})
	}
	for _, p := range programs(l.Processes) {
		args := []string{"--config", dc.ConfigFile(), "--set", "telemetry.addr=" + dc.Addr(p.telemetry)}
		if component := p.component(); slices.Contains(identity.KeyComponents(), component) {
			args = append(args, "--set", "server.secret_file="+dc.KeyFile(component))
		}
		specs = append(specs, process.Spec{
			Name: p.name, Path: filepath.Join(l.Bin, p.name),
			Args:    args,
			LogFile: dc.LogFile(p.name), Grace: serviceGrace,
		})
	}
	return specs
}
