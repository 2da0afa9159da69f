package replicator_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/services/replicator"
)

func TestExampleSaysTheDefaults(t *testing.T) {
	cfg := replicator.DefaultConfig()
	require.NoError(t, config.LoadService(&cfg, config.Options{Files: []string{"config.example.yaml"}, Environ: []string{}}))
	want := replicator.DefaultConfig().Replicator
	want.Listen = "10.2.0.10:8522"
	require.Equal(t, want, cfg.Replicator)
}

func TestAHeartbeatThatSourcesRefuseIsRefused(t *testing.T) {
	for _, heartbeat := range []time.Duration{99 * time.Millisecond, 11 * time.Minute} {
		cfg := replicator.DefaultConfig()
		cfg.Server.Datacenter, cfg.Server.SecretFile = "us-west", "secret"
		cfg.Replicator.Heartbeat, cfg.Replicator.StreamTimeout = heartbeat, time.Hour
		cfg.Normalize()
		require.ErrorContains(t, cfg.Validate(), "replicator.heartbeat: "+heartbeat.String()+" is not between 100ms and 10m0s")
	}
}

func TestListenFollowsBindAddr(t *testing.T) {
	cfg := replicator.DefaultConfig()
	cfg.Server.BindAddr = "127.83.7.2"
	cfg.Normalize()
	require.Equal(t, "127.83.7.2:8522", cfg.Replicator.Listen)
}

func TestValidateReportsEveryProblem(t *testing.T) {
	cfg := replicator.DefaultConfig()
	cfg.Replicator = replicator.Settings{Listen: "nowhere", Heartbeat: 6 * time.Second, StreamTimeout: 10 * time.Second, RetryMin: time.Minute, RetryMax: time.Second}
	cfg.Base.Normalize()
	err := cfg.Validate()
	for _, field := range []string{
		"server.datacenter", "replicator.listen", "replicator.heartbeat", "replicator.retry_min",
		"replicator.batch_max", "replicator.call_timeout", "replicator.poll_interval", "replicator.cursor_interval",
	} {
		require.ErrorContains(t, err, field)
	}
}
