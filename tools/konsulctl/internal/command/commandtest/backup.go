package commandtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/backupfile"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/konsul/konsultest"
)

// BackupFile returns a backup of us-west, with a base an increment.
func BackupFile(t *testing.T, id string, index uint64, base *backupfile.Base) []byte {
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

// Backups teaches a gateway of us-west to back up and to restore.
func Backups(t *testing.T, g *konsultest.Gateway) {
	t.Helper()
	konsultest.On(g, func(r *registryv1.CreateBackupRequest) (*registryv1.CreateBackupResponse, error) {
		switch {
		case r.GetDatacenter() == "atlantis":
			return nil, fault.New(fault.NotFound, "UNKNOWN_DATACENTER", "there is no datacenter %q in this federation", r.GetDatacenter()).WithField("datacenter")
		case r.GetDatacenter() == "eu-central":
			whole := BackupFile(t, "b1", 41, nil)
			return &registryv1.CreateBackupResponse{Data: whole[:len(whole)-1]}, nil
		case r.GetBase() == nil:
			return &registryv1.CreateBackupResponse{Data: BackupFile(t, "b1", 41, nil)}, nil
		}
		return &registryv1.CreateBackupResponse{Data: BackupFile(t, "b2", 52, &backupfile.Base{ID: r.GetBase().GetId(), Index: r.GetBase().GetIndex()})}, nil
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
	// OtherKeyFile is a file of the workshop with a key that opens nothing there.
	OtherKeyFile = "other.txt"
)

// Workshop is a folder of files to work with, in which the test runs.
func Workshop(t *testing.T) (golden string) {
	t.Helper()
	golden, err := filepath.Abs("testdata")
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	own, err := age.ParseX25519Identity(testIdentity)
	require.NoError(t, err)
	other, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	full := BackupFile(t, "b1", 41, nil)
	var sealed bytes.Buffer
	w, err := backupfile.Encrypt(&sealed, []age.Recipient{own.Recipient()})
	require.NoError(t, err)
	_, err = w.Write(BackupFile(t, "b2", 52, &backupfile.Base{ID: "b1", Index: 41}))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	damaged := bytes.Clone(full)
	damaged[len(damaged)/2] ^= 1
	for name, content := range map[string][]byte{
		"sunday.tar.gz": full, "monday.tar.gz.age": sealed.Bytes(), "damaged.tar.gz": damaged, "truncated.tar.gz": full[:len(full)-1],
		"key.txt": []byte(own.String() + "\n"), OtherKeyFile: []byte(other.String() + "\n"), "holiday.tar.gz": []byte("a picture"),
	} {
		require.NoError(t, os.WriteFile(name, content, 0o600))
	}
	return golden
}
