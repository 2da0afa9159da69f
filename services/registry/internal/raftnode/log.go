package raftnode

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// newLogger brings the Raft library's log lines into ours, one level down: its Info is our Debug,
// for elections are counted and logged by us.
func newLogger(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: io.Discard})
	logger.RegisterSink(sink{log})
	return logger
}

type sink struct{ log *slog.Logger }

func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error {
		to = slog.LevelWarn // A peer that is down is an error to Raft and a fact of life to us.
	}
	if !s.log.Enabled(context.Background(), to) {
		return
	}
	attrs := []any{"detail", msg}
	for i := 0; i+1 < len(args); i += 2 {
		if key, ok := args[i].(string); ok {
			attrs = append(attrs, slog.Any("raft_"+key, args[i+1]))
		}
	}
	s.log.Log(context.Background(), to, "raft", attrs...)
}
