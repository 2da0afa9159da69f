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

func TestRetiredKeysOfOlderFilesAreTakenAndNoted(t *testing.T) {
	cfg := registry.DefaultConfig()
	require.Empty(t, cfg.ConfigNotes())
	options := config.Options{Files: []string{"config.example.yaml"}, Environ: []string{}, Sets: []string{"registry.heap_bytes=54525952", "registry.raft.zero_ahead_bytes=1"}}
	require.NoError(t, config.LoadService(&cfg, options))
	require.Len(t, cfg.ConfigNotes(), 2)
	require.Contains(t, cfg.ConfigNotes()[0], "GOMEMLIMIT")
}

func TestBadConfigurationNamesEveryField(t *testing.T) {
	cfg := registry.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.SecretFile = "us-east", "s"
	cfg.Normalize()
	require.NoError(t, cfg.Validate())
	cfg.Registry.MaxValueBytes = 1
	cfg.Registry.Audit = registry.Audit{MaxBytes: 1, DeniedPerMinute: -1, Path: "a.log", DeniedPath: "a.log"}
	cfg.Registry.Listen = "nowhere"
	cfg.Registry.Join = []string{"somewhere"}
	server := registry.Server{ID: "a", RaftAddress: "10.0.0.1:8300", Address: "10.0.0.1:8502"}
	cfg.Registry.Servers = []registry.Server{server, server}
	cfg.Registry.Raft.LeaderLease = cfg.Registry.Raft.HeartbeatTimeout
	cfg.Registry.Retention.Indexes = 10
	cfg.Registry.Limits = registry.Limits{WatchesPerToken: -1, RequestsPerSecond: -1}
	cfg.Registry.Store = registry.Store{MemtableBytes: 1 << 19}
	err := cfg.Validate()
	for _, field := range []string{
		"registry.retention.indexes", "registry.store.memtable_bytes", "registry.store.row_cache_bytes", "registry.store.tail_bytes",
		"registry.audit.max_bytes", "registry.audit.keep", "registry.audit.denied_per_minute", "registry.audit.denied_path", "registry.max_value_bytes", "registry.listen", "registry.servers[1].id", "registry.servers", "registry.join[0]", "registry.bootstrap_expect", "registry.raft.leader_lease",
		"registry.limits.watches_per_token", "registry.limits.requests_per_second",
	} {
		require.ErrorContains(t, err, field)
	}
}

func TestAMemtableHoldsTheLargestValue(t *testing.T) {
	cfg := registry.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.SecretFile = "us-east", "s"
	cfg.Registry.MaxValueBytes = 900 << 10
	cfg.Registry.MaxTxnBytes = 2 << 20
	cfg.Normalize()
	require.ErrorContains(t, cfg.Validate(), "registry.store.memtable_bytes")
	cfg.Registry.Store.MemtableBytes = 8 << 20
	require.NoError(t, cfg.Validate())
}
