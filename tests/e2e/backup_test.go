package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/konsul"
	"konsul.dev/tests/framework"
)

// restored is what `konsulctl backup restore -o json` says.
type restored struct {
	Datacenter       string
	SourceDatacenter string `json:"source_datacenter"`
	Index            uint64 `json:",string"`
	BackupIndex      uint64 `json:"backup_index,string"`
	Restored         []struct{ Table string }
}

func inspect(t *testing.T, access framework.Access, args ...string) backupfile.Manifest {
	t.Helper()
	var document struct{ Manifest backupfile.Manifest }
	out := access.MustCTL(t, append([]string{"backup", "inspect", "-o", "json"}, args...)...)
	require.NoError(t, json.Unmarshal([]byte(out), &document), out)
	return document.Manifest
}

// indexOf is up to which index a datacenter's registry has told its state.
func indexOf(t *testing.T, access framework.Access) uint64 {
	t.Helper()
	list, err := access.Client(t).KV.List(t.Context(), "", nil)
	require.NoError(t, err)
	return list.Index
}

// TestABackupMovesADatacenter follows the decision's words with the programs that are shipped: what
// was lost in us-east goes on in us-east-new.
func TestABackupMovesADatacenter(t *testing.T) {
	files := t.TempDir()
	file := func(name string) string { return filepath.Join(files, name) }
	east, fresh := framework.NewSite(t, framework.USEast, 1), framework.NewSite(t, "us-east-new", 3)
	kept := t.TempDir()
	east.Settings = fmt.Sprintf("backup: {every: 1s, full_every: 2, keep: 2, directory: %s}", kept)
	east.Open()
	fresh.Open()
	fresh.Voters("registry-1", "registry-2", "registry-3")
	old := east.Access

	// A full backup, and an encrypted increment on it.
	old.MustCTL(t, "kv", "set", "config/a", "1")
	old.MustCTL(t, "kv", "set", "config/gone", "1")
	old.MustCTL(t, "kv", "set", "--global", "config/everywhere", "2")
	old.MustCTL(t, "service", "register", "--name", "orders", "--id", "orders-1", "--address", "10.0.0.1", "--port", "9000")
	require.Contains(t, old.MustCTL(t, "backup", "create", "--file", file("backup-us-east.tar.gz")), "us-east")
	own, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file("key.txt"), []byte(own.String()+"\n"), 0o600))
	old.MustCTL(t, "kv", "set", "config/a", "2")
	old.MustCTL(t, "kv", "delete", "config/gone")
	old.MustCTL(t, "backup", "create", "--file", file("increment.tar.gz.age"), "--base", file("backup-us-east.tar.gz"), "--recipient", own.Recipient().String())
	old.MustCTL(t, "kv", "set", "config/a", "never backed up")
	full := inspect(t, old, file("backup-us-east.tar.gz"))
	require.Nil(t, full.Base)
	require.Equal(t, framework.USEast, full.Datacenter)
	increment := inspect(t, old, file("increment.tar.gz.age"), "--identity", file("key.txt"))
	require.Equal(t, full.ID, increment.Base.ID)
	require.Contains(t, old.CTL(t, "backup", "inspect", file("increment.tar.gz.age")).Stderr, "the backup is encrypted")
	out := old.MustCTL(t, "backup", "verify", file("backup-us-east.tar.gz"), file("increment.tar.gz.age"), "--identity", file("key.txt"))
	require.Equal(t, 2, strings.Count(out, " is whole: us-east at index "), out)

	// Damage is found before anything is asked of a server.
	whole, err := os.ReadFile(file("backup-us-east.tar.gz"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file("truncated.tar.gz"), whole[:len(whole)-1], 0o600))
	whole[len(whole)/2] ^= 1
	require.NoError(t, os.WriteFile(file("damaged.tar.gz"), whole, 0o600))
	fresh.Access.MustCTL(t, "kv", "set", "mine", "1")
	before := indexOf(t, fresh.Access)
	for _, name := range []string{"truncated.tar.gz", "damaged.tar.gz"} {
		for _, command := range [][]string{{"verify", file(name)}, {"restore", "--file", file(name), "--datacenter", "us-east-new"}} {
			refused := fresh.Access.CTL(t, append([]string{"backup"}, command...)...)
			require.NotZero(t, refused.Code)
			require.Contains(t, refused.Stderr, "damaged", "%v", command)
		}
	}
	require.Contains(t, fresh.Access.CTL(t, "backup", "restore", "--file", file("backup-us-east.tar.gz")).Stderr, "--datacenter us-east-new")
	require.Regexp(t, `Value +1\n`, fresh.Access.MustCTL(t, "kv", "get", "mine"))

	restOverREST(t, old, fresh.Access)
	scheduled(t, old, kept)

	watcher := watchKeys(t, fresh.Access)
	waited := make(chan framework.Reply, 1)
	go func() {
		waited <- fresh.Access.REST(t, http.MethodGet, fmt.Sprintf("/api/v1/kv/config/a?index=%d&wait=60s", before), nil, nil)
	}()
	watcher.until(func(state map[string]string) bool { return state["local/mine"] == "1" })

	var answer restored
	out = fresh.Access.MustCTL(t, "backup", "restore", "--file", file("backup-us-east.tar.gz"), "--file", file("increment.tar.gz.age"),
		"--identity", file("key.txt"), "--datacenter", "us-east-new", "-o", "json")
	require.NoError(t, json.Unmarshal([]byte(out), &answer), out)
	require.Equal(t, restored{"us-east-new", framework.USEast, answer.Index, increment.Index, answer.Restored}, answer)
	require.Greater(t, answer.Index, before)
	require.Greater(t, answer.Index, indexOf(t, old))

	// The state is us-east's, the identity is not; whoever held a token of us-east goes on.
	for _, access := range []framework.Access{fresh.Access, {Addr: fresh.Access.Addr, Token: old.Token, CAFile: fresh.Access.CAFile}} {
		require.Regexp(t, `Value +2\n`, access.MustCTL(t, "kv", "get", "config/a"))
		require.NotZero(t, access.CTL(t, "kv", "get", "config/gone").Code)
		require.NotZero(t, access.CTL(t, "kv", "get", "mine").Code)
	}
	require.Regexp(t, `"origin_datacenter": *"us-east-new"`, fresh.Access.MustCTL(t, "kv", "get", "--global", "config/everywhere", "-o", "json"))
	require.Regexp(t, `"datacenter": *"us-east-new"`, fresh.Access.MustCTL(t, "service", "get", "orders", "--all-status", "-o", "json"))
	require.Regexp(t, `"primary_datacenter": *"us-east-new"`, fresh.Access.MustCTL(t, "federation", "show", "-o", "json"))
	fresh.Voters("registry-1", "registry-2", "registry-3")

	// Who waited is told, who watched begins anew and goes on, above every index given out before.
	reply := <-waited
	require.Equal(t, http.StatusOK, reply.Status, string(reply.Body))
	watcher.until(func(state map[string]string) bool { return state["local/config/a"] == "2" && state["local/mine"] == "" })
	fresh.Access.MustCTL(t, "kv", "set", "after", "1")
	watcher.until(func(state map[string]string) bool { return state["local/after"] == "1" })
	require.Greater(t, watcher.index, answer.Index)
	for i := 1; i <= 3; i++ {
		fresh.End(fmt.Sprintf("r%d", i), syscall.SIGKILL)
	}
	for i := 1; i <= 3; i++ {
		fresh.Start("konsul-registry", fmt.Sprintf("r%d", i), i)
	}
	fresh.Voters("registry-1", "registry-2", "registry-3")
	require.Regexp(t, `Value +2\n`, fresh.Access.MustCTL(t, "kv", "get", "--read-mode", "linearizable", "config/a"))
	watcher.until(func(state map[string]string) bool { return state["local/after"] == "1" })
	require.NoError(t, watcher.failed)
}

// scheduled waits until the schedule has given up what it made first, and reads what it kept.
func scheduled(t *testing.T, access framework.Access, folder string) {
	t.Helper()
	type kept struct {
		ID     string
		Path   string
		BaseID string `json:"base_id"`
	}
	seen := map[string]bool{}
	framework.Eventually(t, soon, "old backups are given up", func() error {
		access.MustCTL(t, "kv", "set", "tick", fmt.Sprint(time.Now().UnixNano()))
		var list struct{ Backups []kept }
		out := access.MustCTL(t, "backup", "list", "-o", "json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		for _, b := range list.Backups {
			seen[b.ID] = true
		}
		// At least two stay, and none of a chain without the others.
		if len(list.Backups) < 2 || len(list.Backups) > 3 || len(seen) < 5 || list.Backups[0].BaseID != "" || list.Backups[1].BaseID != list.Backups[0].ID {
			return fmt.Errorf("%d seen, now %s", len(seen), out)
		}
		require.Equal(t, folder, filepath.Dir(list.Backups[0].Path))
		if r := access.CTL(t, "backup", "verify", list.Backups[0].Path, list.Backups[1].Path); r.Code != 0 {
			return errors.New(r.Stderr) // They may have been given up meanwhile.
		}
		return nil
	})
}

// TestABackupGoesThroughAnotherDatacentersEdge asks one datacenter for what is another's.
func TestABackupGoesThroughAnotherDatacentersEdge(t *testing.T) {
	lab := framework.StartLab(t, framework.LabOptions{})
	east, eu := lab.Access(framework.USEast), lab.Access(framework.EUCentral)
	file := filepath.Join(t.TempDir(), "eu.tar.gz")
	east.MustCTL(t, "kv", "set", "--global", "everywhere", "1")
	eu.MustCTL(t, "kv", "set", "mine", "old")
	framework.Eventually(t, soon, "the global key is copied", func() error {
		if r := eu.CTL(t, "kv", "get", "--global", "everywhere"); r.Code != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
	east.MustCTL(t, "backup", "create", "--file", file, "--datacenter", framework.EUCentral)
	m := inspect(t, east, file)
	require.Equal(t, framework.EUCentral, m.Datacenter)
	over := east.REST(t, http.MethodPost, "/api/v1/backups?datacenter="+framework.EUCentral, nil, nil)
	require.Equal(t, http.StatusOK, over.Status, string(over.Body))
	again, _, err := backupfile.Verify(bytes.NewReader(over.Body))
	require.NoError(t, err)
	require.Equal(t, m.DatacenterID, again.DatacenterID)

	eu.MustCTL(t, "kv", "set", "mine", "new")
	east.MustCTL(t, "kv", "set", "--global", "everywhere", "2")
	before := indexOf(t, eu)
	refused := east.CTL(t, "backup", "restore", "--file", file)
	require.NotZero(t, refused.Code)
	require.Contains(t, refused.Stderr, "--datacenter us-east")
	var answer restored
	out := east.MustCTL(t, "backup", "restore", "--file", file, "--datacenter", framework.EUCentral, "-o", "json")
	require.NoError(t, json.Unmarshal([]byte(out), &answer), out)
	require.Equal(t, framework.EUCentral, answer.Datacenter)
	require.Greater(t, answer.Index, before)
	require.Regexp(t, `Value +old\n`, eu.MustCTL(t, "kv", "get", "mine"))
	// Global rows are the primary's, and go on being copied.
	east.MustCTL(t, "kv", "set", "--global", "everywhere", "3")
	framework.Eventually(t, soon, "replication goes on", func() error {
		if out := eu.MustCTL(t, "kv", "get", "--global", "everywhere"); !strings.Contains(out, "3") {
			return errors.New(out)
		}
		return nil
	})
	require.Contains(t, east.CTL(t, "backup", "create", "--file", file, "--datacenter", "atlantis").Stderr, "atlantis")
	require.Contains(t, east.MustCTL(t, "backup", "list", "--datacenter", framework.EUCentral), "SERVER")
	// Damage on the way to another datacenter is found there.
	over.Body[len(over.Body)/2] ^= 1
	damaged := east.REST(t, http.MethodPut, "/api/v1/backups/restore?datacenter="+framework.EUCentral, over.Body, nil)
	require.Contains(t, string(damaged.Body), "BACKUP_DAMAGED")
	lab.Kill(framework.EUCentral)
	framework.Eventually(t, soon, "a datacenter that does not answer is named", func() error {
		if r := east.CTL(t, "backup", "create", "--file", file, "--datacenter", framework.EUCentral); r.Code == 0 || !strings.Contains(r.Stderr, "datacenter eu-central did not answer") {
			return errors.New(r.Stderr)
		}
		return nil
	})
}

// restOverREST makes and tries backups with nothing but HTTP; of the last one, nothing is to be
// seen afterwards.
func restOverREST(t *testing.T, from, to framework.Access) {
	t.Helper()
	made := from.REST(t, http.MethodPost, "/api/v1/backups", nil, nil)
	require.Equal(t, http.StatusOK, made.Status, string(made.Body))
	m, _, err := backupfile.Verify(bytes.NewReader(made.Body))
	require.NoError(t, err)
	increment := from.REST(t, http.MethodPost, fmt.Sprintf("/api/v1/backups?base.id=%s&base.index=%d&base.federation_id=%s&base.datacenter_id=%s&base.generation=%d",
		m.ID, m.Index, m.FederationID, m.DatacenterID, m.Generation), nil, nil)
	require.Equal(t, http.StatusOK, increment.Status, string(increment.Body))
	next, _, err := backupfile.Verify(bytes.NewReader(increment.Body))
	require.NoError(t, err)
	require.Equal(t, m.ID, next.Base.ID)

	tried := to.REST(t, http.MethodPut, "/api/v1/backups/restore?datacenter=us-east-new&dry_run", made.Body, nil)
	require.Equal(t, http.StatusOK, tried.Status, string(tried.Body))
	var answer restored
	require.NoError(t, json.Unmarshal(tried.Body, &answer))
	require.Equal(t, framework.USEast, answer.SourceDatacenter)
	require.NotEmpty(t, answer.Restored)
	// The registry checks for itself.
	damaged := bytes.Clone(made.Body)
	damaged[len(damaged)/2] ^= 1
	for reason, body := range map[string][]byte{"BACKUP_DAMAGED": damaged, "BACKUP_OF_ANOTHER_DATACENTER": made.Body} {
		path := "/api/v1/backups/restore"
		if reason == "BACKUP_DAMAGED" {
			path += "?datacenter=us-east-new"
		}
		refused := to.REST(t, http.MethodPut, path, body, nil)
		require.GreaterOrEqual(t, refused.Status, 400)
		require.Contains(t, string(refused.Body), reason)
	}
	made = to.REST(t, http.MethodPost, "/api/v1/backups", nil, http.Header{"Authorization": {"Bearer a-secret-nobody-has-0123"}})
	require.Equal(t, http.StatusUnauthorized, made.Status)
}

// watcher follows all keys of a datacenter; its state belongs to the caller of until.
type watcher struct {
	t       *testing.T
	changes chan *konsul.KVChange
	state   map[string]string
	index   uint64
	failed  error
}

func watchKeys(t *testing.T, access framework.Access) *watcher {
	t.Helper()
	w := &watcher{t: t, changes: make(chan *konsul.KVChange), state: map[string]string{}}
	client := access.Client(t)
	go func() {
		_ = client.Watch.KV(t.Context(), "", &konsul.WatchOptions{Prefix: true}, func(c *konsul.KVChange) error {
			select {
			case w.changes <- c:
				return nil
			case <-t.Context().Done():
				return context.Canceled
			}
		})
	}()
	return w
}

// until takes changes in until the state is as it should be.
func (w *watcher) until(as func(map[string]string) bool) {
	w.t.Helper()
	timeout := time.After(soon)
	for !as(w.state) {
		select {
		case c := <-w.changes:
			w.take(c)
		case <-timeout:
			w.t.Fatalf("the watch stands at %d with %v", w.index, w.state)
		}
	}
}

func (w *watcher) take(c *konsul.KVChange) {
	if c.Index < w.index {
		w.failed = errors.Join(w.failed, fmt.Errorf("the index went back from %d to %d", w.index, c.Index))
	}
	w.index = c.Index
	if c.Reset {
		clear(w.state)
	}
	for _, key := range c.Deleted {
		delete(w.state, key)
	}
	for _, e := range c.Entries {
		w.state[string(e.Scope)+"/"+e.Key] = string(e.Value)
	}
}
