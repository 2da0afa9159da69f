package plan

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// definition is a service definition as the agent reads it: the ADR's, with address and checks.
type definition struct {
	Service serviceSection `yaml:"service"`
}

type serviceSection struct {
	ID         string           `yaml:"id"`
	Name       string           `yaml:"name"`
	Datacenter string           `yaml:"datacenter"`
	Address    string           `yaml:"address"`
	Port       int              `yaml:"port"`
	Tags       []string         `yaml:"tags,omitempty"`
	Failover   []failoverTarget `yaml:"failover,omitempty"`
	Checks     []checkSection   `yaml:"checks"`
}

type failoverTarget struct {
	Datacenter string `yaml:"datacenter"`
	Targets    int    `yaml:"targets"`
}

type checkSection struct {
	ID       string `yaml:"id"`
	HTTP     string `yaml:"http"`
	Interval string `yaml:"interval"`
	Timeout  string `yaml:"timeout"`
}

// Definitions returns the service definitions of a datacenter's samples, by file name. The failover
// policy is a global record, so the primary's agent alone sets it; it is the ADR's.
func (l Layout) Definitions(dc Datacenter) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, s := range samples() {
		service := serviceSection{
			ID: s.name + "-1", Name: s.name, Datacenter: dc.Name, Address: dc.Host, Port: dc.Port(s.port), Tags: []string{"sample"},
			Checks: []checkSection{{
				ID: "http", HTTP: "http://" + dc.Addr(s.port) + "/health", Interval: "2s", Timeout: "1s",
			}},
		}
		if s.name == "payment-api" && dc.Primary {
			service.Failover = []failoverTarget{{Datacenter: "us-west", Targets: 3}, {Datacenter: "eu-central", Targets: 2}}
		}
		text, err := yaml.Marshal(definition{Service: service})
		if err != nil {
			return nil, fmt.Errorf("write definition of %s: %w", s.name, err)
		}
		files[s.name+".yaml"] = text
	}
	return files, nil
}
