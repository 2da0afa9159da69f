package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
)

// kinds tells the backups of a folder, oldest first: F a full one, i an increment.
func (w *world) kinds() string {
	w.t.Helper()
	all, err := list(w.Schedule.Directory)
	require.NoError(w.t, err)
	var out strings.Builder
	for _, k := range all {
		kind := "F"
		if k.manifest.Base != nil {
			kind = "i"
		}
		out.WriteString(kind)
	}
	return out.String()
}

// once changes something, lets time pass and makes the next scheduled backup.
func (w *world) once() {
	w.t.Helper()
	w.clock.Advance(time.Hour)
	w.set("a", fmt.Sprint(w.index))
	require.NoError(w.t, w.Once(w.t.Context()))
}

func TestRetentionGivesUpWholeChains(t *testing.T) {
	chain := func(kinds string) []kept {
		var all []kept
		for i, kind := range kinds {
			k := kept{path: fmt.Sprint(i), manifest: backupfile.Manifest{CreatedAt: noon.Add(time.Duration(i) * time.Hour)}}
			if kind == 'i' {
				k.manifest.Base = &backupfile.Base{ID: fmt.Sprint(i - 1)}
			}
			all = append(all, k)
		}
		return all
	}
	for name, c := range map[string]struct {
		kinds   string
		keep    int
		keepFor time.Duration
		gone    int
	}{
		"no limit":                                 {"FFFF", 0, 0, 0},
		"nothing":                                  {"", 3, time.Hour, 0},
		"as many as may stay":                      {"FFF", 3, 0, 0},
		"the oldest of too many":                   {"FFFFF", 3, 0, 2},
		"a chain stays while it is needed":         {"FiiFi", 3, 0, 0},
		"a chain goes as a whole":                  {"FiiFii", 3, 0, 3},
		"the newest chain stays, however long":     {"Fiiii", 2, 0, 0},
		"too old":                                  {"FFFFF", 0, 2 * time.Hour, 2},
		"a chain whose newest is young enough":     {"FiiiF", 0, 2 * time.Hour, 0},
		"the newest chain stays, however old":      {"Fi", 0, time.Minute, 0},
		"either limit":                             {"FFFFF", 4, 2 * time.Hour, 2},
		"increments whose full backup is not here": {"iiF", 1, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			all := chain(c.kinds)
			now := noon.Add(time.Duration(len(all)-1) * time.Hour)
			gone := surplus(all, c.keep, c.keepFor, now)
			require.Len(t, gone, c.gone)
			for i, k := range gone {
				require.Equal(t, all[i].path, k.path)
			}
		})
	}
}

func TestTheScheduleMakesChainsAndKeepsWhatItShould(t *testing.T) {
	w := newWorld(t, Schedule{Directory: t.TempDir(), Every: time.Hour, FullEvery: 3, Keep: 4})
	seen := ""
	for range 8 {
		w.once()
		seen += " " + w.kinds()
	}
	require.Equal(t, " F Fi Fii FiiF FiiFi FiiFii FiiF FiiFi", seen)
	answers, err := w.Kept()
	require.NoError(t, err)
	var files [][]byte
	for _, k := range answers[3:] {
		file, err := os.ReadFile(k.GetPath())
		require.NoError(t, err)
		require.EqualValues(t, len(file), k.GetBytes())
		files = append(files, file)
	}
	require.Equal(t, answers[3].GetId(), answers[4].GetBaseId())
	_, err = w.restore(Order{}, files...)
	require.NoError(t, err)
	require.Equal(t, w.rows[0].GetValue(), []byte(w.values()["local/a"]))
	require.Equal(t, w.clock.Now().Unix(), int64(testutil.ToFloat64(w.Metrics.last)))
	require.EqualValues(t, answers[4].GetBytes(), int64(testutil.ToFloat64(w.Metrics.size)))
}

func TestAnIncrementHasItsBaseInTheFolder(t *testing.T) {
	w := newWorld(t, Schedule{Directory: t.TempDir(), Every: time.Hour, FullEvery: 10})
	w.once()
	w.once()
	w.once()
	require.Equal(t, "Fii", w.kinds())
	all, err := list(w.Schedule.Directory)
	require.NoError(t, err)
	require.NoError(t, os.Remove(all[1].path))
	w.once()
	require.Equal(t, "FiF", w.kinds(), "on a chain that somebody broke nothing is built")
	w.own.DatacenterID = "rebuilt"
	w.once()
	require.Equal(t, "FiFF", w.kinds(), "nor on another datacenter's")
	w.once()
	w.watermark = w.index + 1
	w.once()
	require.Equal(t, "FiFFiF", w.kinds(), "nor on one whose deletions are forgotten")
}

func TestWhatDidNotChangeIsNotBackedUpAgain(t *testing.T) {
	w := newWorld(t, Schedule{Directory: t.TempDir(), Every: time.Hour, FullEvery: 1})
	w.once()
	w.clock.Advance(time.Hour)
	require.NoError(t, w.Once(t.Context()))
	require.Equal(t, "F", w.kinds())
	require.Equal(t, w.clock.Now().Unix(), int64(testutil.ToFloat64(w.Metrics.last)), "the last one is as good as a new one: no alert")
	w.own.Generation++
	require.NoError(t, w.Once(t.Context()))
	require.Equal(t, "FF", w.kinds(), "after a recovery the same index is another state")
}

func TestAMissingDirectoryIsNamedAndNeverMade(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "not-mounted")
	w := newWorld(t, Schedule{Directory: missing, Every: time.Hour, FullEvery: 1})
	err := w.Once(t.Context())
	require.Equal(t, ReasonNoDirectory, fault.ReasonOf(err))
	require.Contains(t, err.Error(), missing)
	require.NoDirExists(t, missing)
	kept, err := w.Kept()
	require.NoError(t, err)
	require.Empty(t, kept)
	w.Schedule.Make = true
	require.NoError(t, w.Once(t.Context()))
	require.Equal(t, "F", w.kinds())
}

func TestScheduledBackupsAreEncrypted(t *testing.T) {
	own, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	w := newWorld(t, Schedule{Directory: t.TempDir(), Every: time.Hour, FullEvery: 2, Recipients: []string{own.Recipient().String()}})
	w.once()
	w.once()
	require.Equal(t, "Fi", w.kinds(), "the notes say what the files do not")
	kept, err := w.Kept()
	require.NoError(t, err)
	for _, k := range kept {
		require.True(t, k.GetEncrypted())
		f, err := os.Open(k.GetPath())
		require.NoError(t, err)
		plain, encrypted, err := backupfile.Decrypt(f, []age.Identity{own})
		require.NoError(t, err)
		require.True(t, encrypted)
		m, _, err := backupfile.Verify(plain)
		require.NoError(t, err)
		require.Equal(t, k.GetId(), m.ID)
		require.NoError(t, f.Close())
	}
}

func TestWhatADeadServerLeftIsSweptAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, Schedule{Directory: dir, Every: time.Hour, FullEvery: 1})
	w.once()
	write := func(name string, age time.Duration) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte("{}"), 0o600))
		at := w.clock.Now().Add(-age)
		require.NoError(t, os.Chtimes(path, at, at))
	}
	write("backup-dc1-old.tar.gz.part", 25*time.Hour)
	write("backup-dc1-old.tar.gz.json", 25*time.Hour)
	write("backup-dc1-young.tar.gz.part", time.Hour)
	write("holiday.tar.gz.part", 25*time.Hour)
	write("backup-by-hand.tar.gz", 25*time.Hour)
	w.once()
	require.Equal(t, "FF", w.kinds())
	for name, there := range map[string]bool{
		"backup-dc1-old.tar.gz.part": false, "backup-dc1-old.tar.gz.json": false,
		"backup-dc1-young.tar.gz.part": true, "holiday.tar.gz.part": true, "backup-by-hand.tar.gz": true,
	} {
		_, err := os.Stat(filepath.Join(dir, name))
		require.Equal(t, there, err == nil, name)
	}
}

func TestAFailedBackupLeavesNothingAndIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, Schedule{Directory: dir, Every: time.Hour, FullEvery: 1})
	broken := true
	working := w.Params.Export
	var mu sync.Mutex
	tried := make(chan struct{}, 16)
	w.Params.Export = func(since uint64) (Export, error) {
		mu.Lock()
		defer mu.Unlock()
		defer func() { tried <- struct{}{} }()
		if broken {
			return nil, fault.New(fault.Unavailable, "BROKEN", "the disk is gone")
		}
		return working(since)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { w.Run(ctx) })
	<-tried
	require.Eventually(t, func() bool { return testutil.ToFloat64(w.Metrics.failures) == 1 }, time.Minute, time.Millisecond)
	mu.Lock()
	broken = false
	mu.Unlock()
	require.Eventually(t, func() bool {
		w.clock.Advance(retryAfter)
		return len(tried) > 0
	}, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool { return testutil.ToFloat64(w.Metrics.last) > 0 }, time.Minute, time.Millisecond)
	cancel()
	run.Wait()
	require.Equal(t, "F", w.kinds())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2, "the file and its note")
}

func TestARestartDoesNotPutABackupOff(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, Schedule{Directory: dir, Every: time.Hour, FullEvery: 1})
	left, err := w.due()
	require.NoError(t, err)
	require.LessOrEqual(t, left, time.Duration(0), "the first one is due at once")
	w.once()
	made := w.clock.Now()
	again := newWorld(t, w.Schedule)
	again.clock.Advance(made.Sub(noon) + 40*time.Minute)
	left, err = again.due()
	require.NoError(t, err)
	require.Equal(t, 20*time.Minute, left)
	again.remember()
	require.Equal(t, made.Unix(), int64(testutil.ToFloat64(again.Metrics.last)))
	early := newWorld(t, w.Schedule)
	early.clock.Advance(-24 * time.Hour)
	left, err = early.due()
	require.NoError(t, err)
	require.Equal(t, time.Hour, left, "a clock that was ahead puts none off for longer")
}
