package serfpool

import (
	"context"
	"log" //nolint:depguard // the type the libraries take; it writes to slog
	"log/slog"
	"strings"

	"konsul.dev/pkg/obs"
)

// libraryMessage is the constant message under which a library's own words are logged.
const libraryMessage = "gossip library"

// stdLogger answers a logger of the standard library's kind that writes to slog, as the libraries want.
func stdLogger(log *slog.Logger) *log.Logger {
	return slog.NewLogLogger(libraryHandler{log.Handler()}, slog.LevelInfo)
}

// libraryHandler reads Serf's "[LEVEL] component: text" lines. What is an error to the library is a
// warning to us: an unreachable or refused peer is what it was made for, and our own log says what matters.
type libraryHandler struct{ slog.Handler }

// Enabled implements slog.Handler; the level is known only once the line has been read.
func (h libraryHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h libraryHandler) Handle(ctx context.Context, record slog.Record) error {
	level, text := parseLine(record.Message)
	if !h.Handler.Enabled(ctx, level) {
		return nil
	}
	out := slog.NewRecord(record.Time, level, libraryMessage, 0)
	out.AddAttrs(slog.String(obs.KeyReason, text))
	return h.Handler.Handle(ctx, out)
}

func parseLine(line string) (slog.Level, string) {
	rest, tagged := strings.CutPrefix(line, "[")
	tag, text, closed := strings.Cut(rest, "] ")
	if !tagged || !closed {
		return slog.LevelDebug, line
	}
	switch tag {
	case "WARN", "ERR", "ERROR":
		return slog.LevelWarn, text
	default: // Serf's INFO repeats what we log ourselves
		return slog.LevelDebug, text
	}
}
