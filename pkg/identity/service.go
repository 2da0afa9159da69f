package identity

import (
	"path/filepath"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/obs"
)

// ConfigFor returns what a service of the datacenter in base enrolls with; its identity is kept in
// the service's own folder. An agent's identity names its node, unless it has a name that no
// identity can hold: then the agent needs the key of all agents.
func ConfigFor(base config.Base, service string, telemetry *obs.Telemetry) EnrollConfig {
	cfg := EnrollConfig{
		CAAddrs:    base.Endpoints.CA,
		Datacenter: base.Server.Datacenter,
		Service:    service,
		SecretFile: base.Server.SecretFile,
		Dir:        filepath.Join(base.Server.DataDir, service),
		Log:        telemetry.Log,
		Metrics:    telemetry.Metrics,
	}
	if service == componentAgent && ValidNode(base.Server.Node) {
		cfg.Node = base.Server.Node
	}
	return cfg
}
