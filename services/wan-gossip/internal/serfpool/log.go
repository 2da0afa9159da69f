package serfpool

import (
	"context"
	"log" //nolint:depguard // the type the libraries take; it writes to slog
	"log/slog"
	"strings"
	"sync"
	"time"

	"konsul.dev/pkg/obs"
)

// libraryMessage is the constant message under which a library's own words are logged.
const libraryMessage = "gossip library"

// Anybody can make the libraries warn, with a packet for each line: of each kind of warning a few
// are logged in a period, the rest is counted.
const (
	linesPerPeriod = 5
	period         = time.Minute
	// kindWords is how many words tell a kind; what follows is the caller's, such as an address.
	kindWords = 4
	// maxKinds bounds the kinds that are told apart.
	maxKinds = 64
)

// stdLogger returns a logger of the standard library's kind that writes to slog, as the libraries
// want. warned is called for each warning, logged or not.
func stdLogger(log *slog.Logger, warned func()) *log.Logger {
	handler := libraryHandler{Handler: log.Handler(), warned: warned, sampler: &sampler{kinds: map[string]*kind{}}}
	return slog.NewLogLogger(handler, slog.LevelInfo)
}

// libraryHandler reads Serf's "[LEVEL] component: text" lines. What is an error to the library is a
// warning to us: an unreachable or refused peer is what it was made for, and our own log says what
// matters.
type libraryHandler struct {
	slog.Handler

	warned  func()
	sampler *sampler
}

// Enabled implements slog.Handler; the level is known only once the line has been read.
func (h libraryHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h libraryHandler) Handle(ctx context.Context, record slog.Record) error {
	level, text := parseLine(record.Message)
	out := slog.NewRecord(record.Time, level, libraryMessage, 0)
	out.AddAttrs(slog.String(obs.KeyReason, text))
	if level == slog.LevelWarn {
		h.warned()
		pass, held := h.sampler.pass(text, record.Time)
		if !pass {
			return nil
		}
		if held > 0 {
			out.AddAttrs(slog.Int("held_back", held))
		}
	}
	if !h.Handler.Enabled(ctx, level) {
		return nil
	}
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

// sampler lets some lines of each kind pass. Safe for concurrent use.
type sampler struct {
	mu    sync.Mutex
	kinds map[string]*kind
}

type kind struct {
	since        time.Time
	passed, held int
}

// pass reports whether to log a line, and how many of its kind were held back in the period before.
func (s *sampler) pass(line string, now time.Time) (pass bool, held int) {
	words := strings.Fields(line)
	name := strings.Join(words[:min(len(words), kindWords)], " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[name]
	if k == nil {
		if len(s.kinds) >= maxKinds {
			clear(s.kinds)
		}
		k = &kind{since: now}
		s.kinds[name] = k
	}
	if now.Sub(k.since) >= period {
		held = k.held
		*k = kind{since: now}
	}
	if k.passed >= linesPerPeriod {
		k.held++
		return false, 0
	}
	k.passed++
	return true, held
}
