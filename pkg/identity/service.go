package identity

import (
	"path/filepath"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/obs"
)

// ConfigFor answers what a service of the datacenter in base enrolls with; its identity is kept in the
// service's own folder.
func ConfigFor(base config.Base, service string, telemetry *obs.Telemetry) EnrollConfig {
	return EnrollConfig{
		CAAddrs:    base.Endpoints.CA,
		Datacenter: base.Server.Datacenter,
		Service:    service,
		SecretFile: base.Server.SecretFile,
		Dir:        filepath.Join(base.Server.DataDir, service),
		Log:        telemetry.Log,
		Metrics:    telemetry.Metrics,
	}
}
