package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
)

func TestChangedNamesTheKeysThatDiffer(t *testing.T) {
	type section struct {
		Every time.Duration     `koanf:"every"`
		Names []string          `koanf:"names"`
		Meta  map[string]string `koanf:"meta"`
	}
	type whole struct {
		config.Base `koanf:",squash"`
		Own         section `koanf:"own"`
	}
	a := whole{Base: config.DefaultBase(), Own: section{Every: time.Second, Names: []string{"x"}}}
	require.Empty(t, config.Changed(&a, &a))
	b := a
	b.Own.Every, b.Own.Names, b.Server.Datacenter, b.Telemetry.LogLevel = time.Minute, []string{"x", "y"}, "us-west", "debug"
	require.Equal(t, []string{"own.every", "own.names", "server.datacenter", "telemetry.log_level"}, config.Changed(&a, &b))
}
