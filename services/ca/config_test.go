package ca_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/services/ca"
)

func TestTheExampleLoads(t *testing.T) {
	cfg := ca.DefaultConfig()
	require.NoError(t, config.LoadService(&cfg, config.Options{Files: []string{"config.example.yaml"}, Environ: []string{}}))
	require.Equal(t, "127.0.0.1:8532", cfg.CA.Listen)
}

func TestValidateReportsEveryProblem(t *testing.T) {
	cfg := ca.DefaultConfig()
	cfg.Server.Datacenter, cfg.Server.SecretFile = "us-east", "secret"
	cfg.CA.LeafTTL, cfg.CA.JoinTimeout = 100*365*24*time.Hour, 0
	cfg.Normalize()
	err := cfg.Validate()
	require.ErrorContains(t, err, "ca.leaf_ttl")
	require.ErrorContains(t, err, "ca.join_timeout")
}
