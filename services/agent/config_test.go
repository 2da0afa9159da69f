package agent_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/services/agent"
)

func TestExampleSaysTheDefaults(t *testing.T) {
	cfg := agent.DefaultConfig()
	require.NoError(t, config.LoadService(&cfg, config.Options{Files: []string{"config.example.yaml"}, Environ: []string{}}))
	want := agent.DefaultConfig().Agent
	want.Listen, want.ServicesDir, want.NodeAddress = "127.0.0.1:8562", "/etc/konsul/services", "10.1.0.21"
	require.Equal(t, want, cfg.Agent)
}

func TestAddressesFollowBindAddr(t *testing.T) {
	for bind, want := range map[string]string{"127.83.7.2": "127.83.7.2", "0.0.0.0": "web-1", "::": "web-1"} {
		cfg := agent.DefaultConfig()
		cfg.Server.BindAddr, cfg.Server.Node = bind, "web-1"
		cfg.Normalize()
		require.Equal(t, want, cfg.Agent.NodeAddress, bind)
	}
}

func TestValidateReportsEveryProblem(t *testing.T) {
	cfg := agent.DefaultConfig()
	cfg.Agent = agent.Settings{Listen: "nowhere", NodeAddress: "host:80", RetryMin: time.Minute, RetryMax: time.Second, LivenessTTL: time.Millisecond}
	cfg.Base.Normalize()
	err := cfg.Validate()
	for _, field := range []string{
		"server.datacenter", "agent.listen", "agent.node_address", "agent.sync_interval", "agent.reload_interval",
		"agent.check_concurrency", "agent.call_timeout", "agent.retry_min", "agent.liveness_ttl",
	} {
		require.ErrorContains(t, err, field)
	}
}
