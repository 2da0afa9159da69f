package api

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/fault"
)

func TestAStrangerDoesNotFillTheLog(t *testing.T) {
	var log bytes.Buffer
	manual := clock.NewManual(time.Unix(1000, 0))
	a := &auditor{log: slog.New(slog.NewJSONHandler(&log, nil)), clock: manual}
	refuse := func(times int) []string {
		log.Reset()
		for range times {
			a.Refused(t.Context(), "/m", fault.New(fault.Unauthenticated, "NO", "no"))
		}
		return strings.Split(strings.TrimSpace(log.String()), "\n")
	}
	require.Len(t, refuse(1000), refusalsPerWhile)
	manual.Advance(refusalWhile)
	lines := refuse(2)
	require.Len(t, lines, 2)
	require.Contains(t, lines[0], `"unlisted":980`, "what was left out is told")
	require.Contains(t, lines[1], `"unlisted":0`)

	refuse(1000)
	log.Reset()
	a.handedOut(t.Context(), "/m")
	require.Contains(t, log.String(), `"decision":"allowed"`, "what is handed out is always told")
}
