package plan

import (
	"path/filepath"
	"time"

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

// sample is a small real service that every datacenter runs.
type sample struct {
	name string
	port int
}

// programs answers the binaries of a datacenter in the order in which they start.
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

// SampleNames answers the services that every datacenter runs as samples.
func SampleNames() []string {
	var names []string
	for _, s := range samples() {
		names = append(names, s.name)
	}
	return names
}

// Programs answers the names of a datacenter's konsul processes.
func (l Layout) Programs() []string {
	var names []string
	for _, p := range programs(l.Processes) {
		names = append(names, p.name)
	}
	return names
}

// Specs answers the processes of a datacenter in the order in which they start: the samples first, so
// that the agent finds them healthy at its first check.
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
		specs = append(specs, process.Spec{
			Name: p.name, Path: filepath.Join(l.Bin, p.name),
			Args:    []string{"--config", dc.ConfigFile(), "--set", "telemetry.addr=" + dc.Addr(p.telemetry)},
			LogFile: dc.LogFile(p.name), Grace: serviceGrace,
		})
	}
	return specs
}
