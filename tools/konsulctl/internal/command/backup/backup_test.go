package backup_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/konsul/konsultest"
	"konsul.dev/tools/konsulctl/internal/command/commandtest"
)

func TestWhatKonsulctlSaysOfBackups(t *testing.T) {
	golden := commandtest.Workshop(t)
	gateway := commandtest.Federation(t)
	commandtest.Backups(t, gateway)
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
		"error-backup-identity":     "backup inspect monday.tar.gz.age --identity " + commandtest.OtherKeyFile,
		"error-backup-chain":        "backup verify monday.tar.gz.age sunday.tar.gz --identity key.txt",
		"error-backup-lone":         "backup restore --file monday.tar.gz.age --identity key.txt",
		"error-backup-restore-what": "backup restore",
		"error-backup-verify-what":  "backup verify",
		"error-backup-denied":       "backup restore --file sunday.tar.gz --datacenter us-west",
	} {
		t.Run(name, func(t *testing.T) { commandtest.Says(t, gateway, golden, name, line) })
	}
	left, err := filepath.Glob("x*")
	require.NoError(t, err)
	require.Empty(t, left, "what failed left a file")
}

func TestABackupArrivesWholeAndIsSentWhole(t *testing.T) {
	commandtest.Workshop(t)
	gateway := commandtest.Federation(t)
	commandtest.Backups(t, gateway)
	r := commandtest.Ctl(t, gateway, "", "backup", "create", "--file", "new.tar.gz", "--datacenter", "us-west")
	require.Zero(t, r.Code, r.Stderr)
	require.Equal(t, "us-west", konsultest.Last[*registryv1.CreateBackupRequest](gateway).GetDatacenter())
	made, err := os.ReadFile("new.tar.gz")
	require.NoError(t, err)
	require.Equal(t, commandtest.BackupFile(t, "b1", 41, nil), made)
	info, err := os.Stat("new.tar.gz")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode(), "it holds what only few may read")

	r = commandtest.Ctl(t, gateway, "", "backup", "create", "--file", "-", "--datacenter", "us-west")
	require.Zero(t, r.Code, r.Stderr)
	require.Equal(t, string(made), r.Stdout)
	require.Contains(t, r.Stderr, "backup b1 of us-west at index 41")
	require.NoFileExists(t, "-")

	require.Zero(t, commandtest.Ctl(t, gateway, "", "backup", "create", "--file", "next.tar.gz", "--base", "new.tar.gz").Code)
	base := konsultest.Last[*registryv1.CreateBackupRequest](gateway).GetBase()
	commandtest.Same(t, &registryv1.BackupBase{Id: "b1", Index: 41, FederationId: "6f1d", DatacenterId: "id-2"}, base)

	r = commandtest.Ctl(t, gateway, "", "backup", "restore", "--file", "sunday.tar.gz", "--file", "monday.tar.gz.age", "--identity", "key.txt", "--datacenter", "us-east-new")
	require.Zero(t, r.Code, r.Stderr)
	var files [][]byte
	var file []byte
	for _, request := range gateway.Requests() {
		sent, ok := request.(*registryv1.RestoreBackupRequest)
		switch {
		case !ok:
		case sent.GetStart() != nil:
			commandtest.Same(t, &registryv1.RestoreStart{Datacenter: "us-east-new"}, sent.GetStart())
		case sent.GetEnd() != nil:
			files, file = append(files, file), nil
		default:
			file = append(file, sent.GetData()...)
		}
	}
	require.Equal(t, [][]byte{commandtest.BackupFile(t, "b1", 41, nil), commandtest.BackupFile(t, "b2", 52, &backupfile.Base{ID: "b1", Index: 41})}, files, "decrypted")
}

func TestALargeBackupIsSentInPieces(t *testing.T) {
	commandtest.Workshop(t)
	gateway := commandtest.Federation(t)
	commandtest.Backups(t, gateway)
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
	r := commandtest.Ctl(t, gateway, "", "backup", "restore", "--file", "big.tar.gz")
	require.Zero(t, r.Code, r.Stderr)
	var got []byte
	for _, request := range gateway.Requests() {
		if sent, ok := request.(*registryv1.RestoreBackupRequest); ok {
			require.LessOrEqual(t, len(sent.GetData()), 256<<10)
			got = append(got, sent.GetData()...)
		}
	}
	require.Equal(t, out.Bytes(), got)
}
