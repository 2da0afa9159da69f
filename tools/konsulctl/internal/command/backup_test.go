package command_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
)

// backupFile answers a backup of us-west, with a base an increment.
func backupFile(t *testing.T, id string, index uint64, base *backupfile.Base) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := backupfile.NewWriter(&out, backupfile.Manifest{
		ID: id, FederationID: "6f1d", Datacenter: "us-west", DatacenterID: "id-2", Index: index, Epoch: 1,
		CreatedAt: at(1).AsTime(), Version: "0.1.0", Base: base,
	})
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, w.Write(&registryv1.Record{
			Table: registryv1.Table_TABLE_KV, Key: fmt.Sprintf("local/%d", i), Value: []byte("v"), ModifyIndex: index, Deleted: base != nil && i == 2,
		}))
	}
	_, err = w.Close()
	require.NoError(t, err)
	return out.Bytes()
}

// backups teaches a gateway of us-west to back up and to restore.
func backups(t *testing.T, g *konsultest.Gateway) {
	t.Helper()
	konsultest.On(g, func(r *registryv1.CreateBackupRequest) (*registryv1.CreateBackupResponse, error) {
		switch {
		case r.GetDatacenter() == "atlantis":
			return nil, fault.New(fault.NotFound, "UNKNOWN_DATACENTER", "there is no datacenter %q in this federation", r.GetDatacenter()).WithField("datacenter")
		case r.GetDatacenter() == "eu-central":
			whole := backupFile(t, "b1", 41, nil)
			return &registryv1.CreateBackupResponse{Data: whole[:len(whole)-1]}, nil
		case r.GetBase() == nil:
			return &registryv1.CreateBackupResponse{Data: backupFile(t, "b1", 41, nil)}, nil
		}
		return &registryv1.CreateBackupResponse{Data: backupFile(t, "b2", 52, &backupfile.Base{ID: r.GetBase().GetId(), Index: r.GetBase().GetIndex()})}, nil
	})
	konsultest.On(g, func(r *registryv1.RestoreBackupRequest) (*registryv1.RestoreBackupResponse, error) {
		answer := &registryv1.RestoreBackupResponse{
			Datacenter: "us-west", SourceDatacenter: "us-west", BackupIndex: 41, Kept: 5, DryRun: r.GetStart().GetDryRun(),
			Restored: []*registryv1.TableCount{{Table: "acl_token", Rows: 2}, {Table: "kv", Rows: 3}},
			Notes:    []string{"tokens are the backup's again; the initial management token and the token that asked for this go on working"},
		}
		switch {
		case r.GetStart().GetDatacenter() == "us-east-new":
			answer.Datacenter = "us-east-new"
		case r.GetStart().GetDatacenter() != "":
			return nil, fault.New(fault.PermissionDenied, "PERMISSION_DENIED", "the token lacks backup:write")
		}
		if !answer.GetDryRun() {
			answer.Index = 1_114_218
		}
		return answer, nil
	})
	konsultest.On(g, func(*registryv1.ListBackupsRequest) (*registryv1.ListBackupsResponse, error) {
		return &registryv1.ListBackupsResponse{Unreachable: []string{"n3"}, Backups: []*registryv1.KeptBackup{
			{Server: "n1", Path: "/var/lib/konsul/registry/backups/backup-us-west-1.tar.gz.age", Bytes: 2048, Id: "b1", Index: 41, CreatedAt: at(1), Encrypted: true},
			{Server: "n1", Path: "/var/lib/konsul/registry/backups/backup-us-west-2.tar.gz.age", Bytes: 512, Id: "b2", Index: 52, CreatedAt: at(2), BaseId: "b1", Encrypted: true},
			{Server: "n2", Path: "/var/lib/konsul/registry/backups/backup-us-west-0.tar.gz", Bytes: 1024, Id: "b0", Index: 12, CreatedAt: at(0)},
		}}, nil
	})
}

// age keys of these tests alone.
const (
	testIdentity = "AGE-SECRET-KEY-1LDPDAHPMJ6J6CEJN9JEHU6XVTFEWHJ64AM4DN9ZSJ0388JDCYZLQTCHM05"
	otherKeyFile = "other.txt"
)

// workshop is a folder of files to work with, in which the test runs.
func workshop(t *testing.T) (golden string) {
	t.Helper()
	golden, err := filepath.Abs("testdata")
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	own, err := age.ParseX25519Identity(testIdentity)
	require.NoError(t, err)
	other, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	full := backupFile(t, "b1", 41, nil)
	var sealed bytes.Buffer
	w, err := backupfile.Encrypt(&sealed, []age.Recipient{own.Recipient()})
	require.NoError(t, err)
	_, err = w.Write(backupFile(t, "b2", 52, &backupfile.Base{ID: "b1", Index: 41}))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	damaged := bytes.Clone(full)
	damaged[len(damaged)/2] ^= 1
	for name, content := range map[string][]byte{
		"sunday.tar.gz": full, "monday.tar.gz.age": sealed.Bytes(), "damaged.tar.gz": damaged, "truncated.tar.gz": full[:len(full)-1],
		"key.txt": []byte(own.String() + "\n"), otherKeyFile: []byte(other.String() + "\n"), "holiday.tar.gz": []byte("a picture"),
	} {
		require.NoError(t, os.WriteFile(name, content, 0o600))
	}
	return golden
}

func TestWhatKonsulctlSaysOfBackups(t *testing.T) {
	golden := workshop(t)
	gateway := federation(t)
	backups(t, gateway)
	for name, line := range map[string]string{
		"backup-create":             "backup create --file new.tar.gz",
		"backup-create-increment":   "backup create --file next.tar.gz --base sunday.tar.gz",
		"backup-create-encrypted":   "backup create --file new.tar.gz.age --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
		"backup-inspect":            "backup inspect sunday.tar.gz",
		"backup-inspect-encrypted":  "backup inspect monday.tar.gz.age --identity key.txt",
		"backup-verify":             "backup verify sunday.tar.gz",
		"backup-verify-file":        "backup verify --file sunday.tar.gz",
		"error-backup-two":          "backup inspect sunday.tar.gz --file monday.tar.gz.age",
		"backup-verify-chain":       "backup verify sunday.tar.gz monday.tar.gz.age --identity key.txt",
		"backup-restore":            "backup restore --file sunday.tar.gz",
		"backup-restore-elsewhere":  "backup restore --file sunday.tar.gz --datacenter us-east-new",
		"backup-restore-dry-run":    "backup restore --file sunday.tar.gz --file monday.tar.gz.age --identity key.txt --dry-run",
		"backup-list":               "backup list",
		"error-backup-no-file":      "backup create",
		"error-backup-recipient":    "backup create --file x --recipient age1nonsense",
		"error-backup-folder":       "backup create --file nowhere/x.tar.gz",
		"error-backup-base":         "backup create --file x.tar.gz --base damaged.tar.gz",
		"error-backup-cut-off":      "backup create --file x.tar.gz --datacenter eu-central",
		"error-backup-datacenter":   "backup create --file x.tar.gz --datacenter atlantis",
		"error-backup-damaged":      "backup verify damaged.tar.gz",
		"error-backup-truncated":    "backup restore --file truncated.tar.gz",
		"error-backup-no-backup":    "backup inspect holiday.tar.gz",
		"error-backup-missing":      "backup inspect missing.tar.gz",
		"error-backup-no-identity":  "backup inspect monday.tar.gz.age",
		"error-backup-identity":     "backup inspect monday.tar.gz.age --identity " + otherKeyFile,
		"error-backup-chain":        "backup verify monday.tar.gz.age sunday.tar.gz --identity key.txt",
		"error-backup-lone":         "backup restore --file monday.tar.gz.age --identity key.txt",
		"error-backup-restore-what": "backup restore",
		"error-backup-verify-what":  "backup verify",
		"error-backup-denied":       "backup restore --file sunday.tar.gz --datacenter us-west",
	} {
		t.Run(name, func(t *testing.T) { says(t, gateway, golden, name, line) })
	}
	left, err := filepath.Glob("x*")
	require.NoError(t, err)
	require.Empty(t, left, "what failed left a file")
}

func TestABackupArrivesWholeAndIsSentWhole(t *testing.T) {
	workshop(t)
	gateway := federation(t)
	backups(t, gateway)
	r := ctl(t, gateway, "", "backup", "create", "--file", "new.tar.gz", "--datacenter", "us-west")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "us-west", konsultest.Last[*registryv1.CreateBackupRequest](gateway).GetDatacenter())
	made, err := os.ReadFile("new.tar.gz")
	require.NoError(t, err)
	require.Equal(t, backupFile(t, "b1", 41, nil), made)
	info, err := os.Stat("new.tar.gz")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode(), "it holds what only few may read")

	r = ctl(t, gateway, "", "backup", "create", "--file", "-", "--datacenter", "us-west")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, string(made), r.stdout)
	require.Contains(t, r.stderr, "backup b1 of us-west at index 41")
	require.NoFileExists(t, "-")

	require.Zero(t, ctl(t, gateway, "", "backup", "create", "--file", "next.tar.gz", "--base", "new.tar.gz").code)
	base := konsultest.Last[*registryv1.CreateBackupRequest](gateway).GetBase()
	same(t, &registryv1.BackupBase{Id: "b1", Index: 41, FederationId: "6f1d", DatacenterId: "id-2"}, base)

	r = ctl(t, gateway, "", "backup", "restore", "--file", "sunday.tar.gz", "--file", "monday.tar.gz.age", "--identity", "key.txt", "--datacenter", "us-east-new")
	require.Zero(t, r.code, r.stderr)
	var files [][]byte
	var file []byte
	for _, request := range gateway.Requests() {
		sent, ok := request.(*registryv1.RestoreBackupRequest)
		switch {
		case !ok:
		case sent.GetStart() != nil:
			same(t, &registryv1.RestoreStart{Datacenter: "us-east-new"}, sent.GetStart())
		case sent.GetEnd() != nil:
			files, file = append(files, file), nil
		default:
			file = append(file, sent.GetData()...)
		}
	}
	require.Equal(t, [][]byte{backupFile(t, "b1", 41, nil), backupFile(t, "b2", 52, &backupfile.Base{ID: "b1", Index: 41})}, files, "decrypted")
}

func TestALargeBackupIsSentInPieces(t *testing.T) {
	workshop(t)
	gateway := federation(t)
	backups(t, gateway)
	var out bytes.Buffer
	w, err := backupfile.NewWriter(&out, backupfile.Manifest{ID: "big", FederationID: "6f1d", Datacenter: "us-west", DatacenterID: "id-2", Index: 9, CreatedAt: time.Unix(0, 0)})
	require.NoError(t, err)
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(i * i >> 7)
	}
	for i := range 8 {
		noise[i] ^= byte(i)
		require.NoError(t, w.Write(&registryv1.Record{Table: registryv1.Table_TABLE_KV, Key: fmt.Sprint("local/", i), Value: noise, ModifyIndex: 9}))
	}
	_, err = w.Close()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("big.tar.gz", out.Bytes(), 0o600))
	r := ctl(t, gateway, "", "backup", "restore", "--file", "big.tar.gz")
	require.Zero(t, r.code, r.stderr)
	var got []byte
	for _, request := range gateway.Requests() {
		if sent, ok := request.(*registryv1.RestoreBackupRequest); ok {
			require.LessOrEqual(t, len(sent.GetData()), 256<<10)
			got = append(got, sent.GetData()...)
		}
	}
	require.Equal(t, out.Bytes(), got)
}
