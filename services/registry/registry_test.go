package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/services/registry"
)

func TestExampleConfigurationLoads(t *testing.T) {
	cfg := registry.DefaultConfig()
	require.NoError(t, config.LoadService(&cfg, config.Options{Files: []string{"config.example.yaml"}, Environ: []string{}}))
	require.Len(t, cfg.Registry.Servers, 3)
}

func TestBadConfigurationNamesEveryField(t *testing.T) {
	cfg := registry.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.SecretFile = "us-east", "s"
	cfg.Normalize()
	require.NoError(t, cfg.Validate())
	cfg.Registry.MaxValueBytes = 1
	cfg.Registry.Listen = "nowhere"
	cfg.Registry.Servers = append(cfg.Registry.Servers, cfg.Registry.Servers[0])
	cfg.Registry.Raft.LeaderLease = cfg.Registry.Raft.HeartbeatTimeout
	err := cfg.Validate()
	for _, field := range []string{"registry.max_value_bytes", "registry.listen", "registry.servers[1].id", "registry.servers", "registry.raft.leader_lease"} {
		require.ErrorContains(t, err, field)
	}
}
