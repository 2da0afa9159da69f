package gateway_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/fault"
	"konsul.dev/services/gateway"
)

func TestThePortsFitIntoWhatTheProcessMayOpen(t *testing.T) {
	for name, c := range map[string]struct {
		files      uint64
		change     func(*gateway.Settings)
		mesh, edge admission.Limits
	}{
		"plenty": {
			files: 1 << 20,
			mesh:  admission.Limits{Connections: 8192, PerSource: 4096, HalfOpen: 1024, HalfOpenPerSource: 256},
			edge:  admission.Limits{Connections: 8192, PerSource: 4096, HalfOpen: 1024, HalfOpenPerSource: 256},
		},
		"twenty thousand": {
			files: 20_000,
			mesh:  admission.Limits{Connections: 5000, PerSource: 2500, HalfOpen: 1024, HalfOpenPerSource: 256},
			edge:  admission.Limits{Connections: 2500, PerSource: 1250, HalfOpen: 625, HalfOpenPerSource: 256},
		},
		"an old default": {
			files: 1024,
			mesh:  admission.Limits{Connections: 256, PerSource: 128, HalfOpen: 64, HalfOpenPerSource: 64},
			edge:  admission.Limits{Connections: 128, PerSource: 64, HalfOpen: 32, HalfOpenPerSource: 32},
		},
		"by setting": {
			files: 1 << 20,
			change: func(s *gateway.Settings) {
				s.MaxConnections, s.MaxConnectionsPerSource, s.MaxHalfOpen, s.MaxHalfOpenPerSource = 100, 200, 10, 5
			},
			mesh: admission.Limits{Connections: 100, PerSource: 100, HalfOpen: 10, HalfOpenPerSource: 5},
			edge: admission.Limits{Connections: 100, PerSource: 100, HalfOpen: 10, HalfOpenPerSource: 5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			settings := gateway.DefaultConfig().Gateway
			if c.change != nil {
				c.change(&settings)
			}
			mesh, edge, err := gateway.PortLimits(settings, c.files)
			require.NoError(t, err)
			require.Equal(t, c.mesh, mesh)
			require.Equal(t, c.edge, edge)
			require.LessOrEqual(t, 2*mesh.Connections+edge.Connections, int(c.files*5/8), "the rest is the process's")
		})
	}
	_, _, err := gateway.PortLimits(gateway.DefaultConfig().Gateway, 255)
	require.Equal(t, gateway.ReasonTooFewFiles, fault.ReasonOf(err))
}
