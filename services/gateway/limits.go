package gateway

import (
	"context"
	"log/slog"

	"konsul.dev/pkg/admission"
	"konsul.dev/pkg/fault"
)

// ReasonTooFewFiles is the reason of a process that may not open enough files to serve.
const ReasonTooFewFiles = "TOO_FEW_OPEN_FILES"

const (
	// leastFiles is what a gateway needs to be of use.
	leastFiles = 256
	// Of the files that the process may open, connections to the mesh port take at most a half, at
	// two for each (its own and the backend's), and those to the edge an eighth. The rest is for
	// what the process dials and keeps, and for the other services of a single-process datacenter.
	filesPerMeshConnection, meshShare = 2, 2
	edgeShare                         = 8
	// halfOpenShare and sourceShare are the parts of a port's connections that may be half open,
	// and that one source may have.
	halfOpenShare, sourceShare = 4, 2
)

// portLimits returns what each port may have in a process that may open so many files.
func (s Settings) portLimits(files uint64) (mesh, edge admission.Limits, err error) {
	if files < leastFiles {
		return mesh, edge, fault.New(fault.FailedPrecondition, ReasonTooFewFiles, "this process may open %d files, and needs %d", files, leastFiles).
			WithRemedy("raise its limit: LimitNOFILE of its unit, ulimits of its container, or ulimit -n")
	}
	return s.limits(files / meshShare / filesPerMeshConnection), s.limits(files / edgeShare), nil
}

func (s Settings) limits(fit uint64) admission.Limits {
	all := s.MaxConnections
	if uint64(all) > fit {
		all = int(fit)
	}
	perSource := s.MaxConnectionsPerSource
	if perSource == 0 {
		perSource = max(1, all/sourceShare)
	}
	halfOpen := max(1, min(s.MaxHalfOpen, all/halfOpenShare))
	return admission.Limits{
		Connections: all, PerSource: min(perSource, all),
		HalfOpen: halfOpen, HalfOpenPerSource: min(s.MaxHalfOpenPerSource, halfOpen),
	}
}

// gates makes what guards the two ports.
func (s *Service) gates(ctx context.Context) (mesh, edge admission.Limits, err error) {
	files, err := admission.OpenFiles()
	if err != nil {
		return mesh, edge, err
	}
	mesh, edge, err = s.cfg.Gateway.portLimits(files)
	if wanted := s.cfg.Gateway.MaxConnections; err == nil && min(mesh.Connections, edge.Connections) < wanted {
		level := slog.LevelWarn
		if wanted == defaultMaxConnections {
			level = slog.LevelInfo // nobody asked for as many
		}
		s.deps.Telemetry.Log.Log(ctx, level, "fewer connections than gateway.max_connections: the process may open too few files",
			"max_connections", wanted, "open_files", files, "mesh_connections", mesh.Connections, "edge_connections", edge.Connections)
	}
	return mesh, edge, err
}
