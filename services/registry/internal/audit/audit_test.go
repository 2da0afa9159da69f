package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/clock"
	"konsul.dev/services/registry/internal/audit"
)

type fixture struct {
	log      *audit.Log
	path     string
	denied   string
	clock    *clock.Manual
	registry *prometheus.Registry
	service  *bytes.Buffer
}

func open(t *testing.T, change func(*audit.Params)) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{path: filepath.Join(dir, "audit.log"), denied: filepath.Join(dir, "audit-denied.log"), clock: clock.NewManual(time.Unix(100, 0).UTC()), registry: prometheus.NewRegistry(), service: &bytes.Buffer{}}
	p := audit.Params{
		Path: f.path, DeniedPath: f.denied, MaxBytes: 1 << 20, Keep: 2, Datacenter: "dc1", Clock: f.clock, Metrics: audit.NewMetrics(f.registry),
		Log: slog.New(slog.NewJSONHandler(f.service, nil)),
	}
	if change != nil {
		change(&p)
	}
	var err error
	f.log, err = audit.Open(p)
	require.NoError(t, err)
	return f
}

func lines(t *testing.T, path string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var out []map[string]any
	for l := range strings.Lines(string(text)) {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(l), &m), l)
		out = append(out, m)
	}
	return out
}

func entry(i int) audit.Entry {
	return audit.Entry{Accessor: "acc", Peer: "spiffe://x", Method: "/m", Resource: "kv:write on local/a", Outcome: "OK", RequestID: fmt.Sprint(i)}
}

func TestALineSaysWhoDidWhat(t *testing.T) {
	f := open(t, nil)
	f.log.Denied(t.Context(), audit.Entry{Accessor: "acc", Method: "/m", Resource: "kv:read on local/a", Outcome: "PermissionDenied PERMISSION_DENIED"})
	f.log.Changed(t.Context(), entry(1))
	require.NoError(t, f.log.Close())
	denied := lines(t, f.denied)
	require.Len(t, denied, 1)
	require.Equal(t, "denied", denied[0]["decision"])
	got := lines(t, f.path)
	require.Len(t, got, 1)
	require.Equal(t, map[string]any{
		"time": "1970-01-01T00:01:40Z", "level": "INFO", "msg": "audit", "dc": "dc1", "decision": "allowed", "accessor": "acc", "peer": "spiffe://x",
		"method": "/m", "resource": "kv:write on local/a", "outcome": "OK", "request_id": "1",
	}, got[0])
	info, err := os.Stat(f.path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	again := open(t, func(p *audit.Params) { p.Path = f.path })
	again.log.Changed(t.Context(), entry(2))
	require.NoError(t, again.log.Close())
	require.Len(t, lines(t, f.path), 2, "a restart appends")
	again.log.Denied(t.Context(), entry(3))
	again.log.Changed(t.Context(), entry(4))
	require.Contains(t, again.service.String(), `"request_id":"4"`, "a change after the end is still told")
}

func TestTheFileRotatesBetweenLines(t *testing.T) {
	f := open(t, func(p *audit.Params) { p.MaxBytes = 600 })
	for i := range 20 {
		f.log.Changed(t.Context(), entry(i))
	}
	require.NoError(t, f.log.Close())
	var all []map[string]any
	for _, name := range []string{f.path + ".2", f.path + ".1", f.path} {
		part := lines(t, name)
		require.NotEmpty(t, part)
		all = append(all, part...)
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(600))
	}
	require.NoFileExists(t, f.path+".3")
	for i, l := range all {
		require.Equal(t, fmt.Sprint(20-len(all)+i), l["request_id"], "the newest lines, in order")
	}
}

func TestARefusalNeverWaitsAndAChangeDoes(t *testing.T) {
	f := open(t, nil)
	const queue = 4096
	for range queue + 10 {
		f.log.Denied(t.Context(), entry(0)) // Nobody writes: it returns all the same.
	}
	for range queue {
		f.log.Changed(t.Context(), entry(0))
	}
	dropped := `
# HELP konsul_registry_audit_dropped_total Lines that are missing in the audit log: denied ones that found no place, repeated denials that a later line counts, changes that went to the service's log instead, and those that failed to be written.
# TYPE konsul_registry_audit_dropped_total counter
konsul_registry_audit_dropped_total{kind="denied"} 10
`
	require.NoError(t, testutil.GatherAndCompare(f.registry, strings.NewReader(dropped), "konsul_registry_audit_dropped_total"))
	done := make(chan struct{})
	go func() {
		f.log.Changed(t.Context(), entry(7))
		close(done)
	}()
	select {
	case <-done:
		require.Fail(t, "a change found a place where there is none")
	case <-time.After(20 * time.Millisecond):
	}
	running := make(chan error, 1)
	go func() { running <- f.log.Run(t.Context()) }()
	<-done
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(f.path)
		return strings.Contains(string(text), `"request_id":"7"`)
	}, 5*time.Second, time.Millisecond)
}

func TestAChangeThatFindsNoPlaceGoesToTheServicesLog(t *testing.T) {
	f := open(t, nil)
	for range 4096 {
		f.log.Changed(t.Context(), entry(0))
	}
	done := make(chan struct{})
	go func() {
		f.log.Changed(t.Context(), entry(7))
		close(done)
	}()
	for waiting := true; waiting; {
		f.clock.Advance(10 * time.Second)
		select {
		case <-done:
			waiting = false
		default:
		}
	}
	require.Contains(t, f.service.String(), `"request_id":"7"`)
}

func TestTheServicesLogWillDo(t *testing.T) {
	f := open(t, func(p *audit.Params) { p.Path, p.DeniedPath = "-", "-" })
	f.log.Changed(t.Context(), entry(1))
	require.NoError(t, f.log.Close())
	require.Contains(t, f.service.String(), `"decision":"allowed"`)
	require.NoFileExists(t, f.path)
}

func TestAFloodOfRefusalsIsCountedAndPushesNoChangeOut(t *testing.T) {
	f := open(t, func(p *audit.Params) { p.DeniedPerMinute, p.MaxBytes = 3, 64<<10 })
	f.log.Changed(t.Context(), entry(1))
	running := make(chan error, 1)
	go func() { running <- f.log.Run(t.Context()) }()
	const flood = 75_000
	wrong := audit.Entry{Peer: "gateway", Method: "/m", Outcome: "Unauthenticated TOKEN_UNKNOWN"}
	for range flood {
		f.log.Denied(t.Context(), wrong)
	}
	other := wrong
	other.Accessor = "acc"
	f.log.Denied(t.Context(), other)
	require.Eventually(t, func() bool {
		f.clock.Advance(time.Minute)
		text, err := os.ReadFile(f.denied)
		return err == nil && strings.Contains(string(text), `"omitted":`)
	}, 5*time.Second, time.Millisecond)
	got := lines(t, f.denied)
	require.Len(t, got, 5, "three, one of somebody else, and the count")
	require.EqualValues(t, flood-3, got[4]["omitted"])
	require.Equal(t, wrong.Outcome, got[4]["outcome"])
	require.Equal(t, "1", lines(t, f.path)[0]["request_id"], "the change is there still")
	f.log.Denied(t.Context(), wrong)
	require.Eventually(t, func() bool { return len(lines(t, f.denied)) == 6 }, 5*time.Second, time.Millisecond, "a minute later it is written anew")
}

func TestKindsOfRefusalsAreBounded(t *testing.T) {
	f := open(t, func(p *audit.Params) { p.DeniedPerMinute = 1 })
	const kinds = 4096
	for i := range kinds + 500 {
		f.log.Denied(t.Context(), audit.Entry{Accessor: fmt.Sprint(i), Method: "/m", Outcome: "PermissionDenied"})
	}
	require.NoError(t, f.log.Close())
	got := lines(t, f.denied)
	last := got[len(got)-1]
	require.Equal(t, "(others)", last["accessor"])
	require.EqualValues(t, 499, last["omitted"])
}
