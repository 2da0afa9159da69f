package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	etcd "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/tests/bench/target"
)

// Moved is what a backup or a restore took.
type Moved struct {
	Seconds float64
	// Bytes is the size of the file.
	Bytes int64
	// Peak is the sum of the servers' peak resident memory meanwhile, in bytes.
	Peak uint64
}

// Backup writes a backup of a cluster to a file: ours, or etcd's snapshot.
func Backup(ctx context.Context, access target.Access, path string) (Moved, error) {
	return moved(access, path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, func(d *driver, file *os.File) error {
		next, err := backupOf(ctx, access.Kind, d.conns[0])
		for err == nil {
			var data []byte
			if data, err = next(); err == nil {
				_, err = file.Write(data)
			}
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		return file.Sync()
	})
}

// backupOf returns a function that answers the next bytes of a backup.
func backupOf(ctx context.Context, kind target.Kind, conn *grpc.ClientConn) (func() ([]byte, error), error) {
	if kind == target.Etcd {
		stream, err := etcd.NewMaintenanceClient(conn).Snapshot(ctx, &etcd.SnapshotRequest{})
		return func() ([]byte, error) {
			part, err := stream.Recv()
			return part.GetBlob(), err
		}, err
	}
	stream, err := registryv1.NewBackupServiceClient(conn).CreateBackup(rpc.WithToken(ctx, target.Token), &registryv1.CreateBackupRequest{})
	return func() ([]byte, error) {
		part, err := stream.Recv()
		return part.GetData(), err
	}, err
}

// restoreChunk is how many bytes of a file travel together.
const restoreChunk = 256 << 10

// Restore replaces the state of a cluster of ours by that of a backup. etcd's is made anew from a
// snapshot, while it is stopped.
func Restore(ctx context.Context, access target.Access, path string) (Moved, error) {
	return moved(access, path, os.O_RDONLY, func(d *driver, file *os.File) error {
		stream, err := registryv1.NewBackupServiceClient(d.conns[0]).RestoreBackup(rpc.WithToken(ctx, target.Token))
		if err != nil {
			return err
		}
		err = stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Start{Start: &registryv1.RestoreStart{}}})
		chunk := make([]byte, restoreChunk)
		for err == nil {
			n, ended := file.Read(chunk)
			if ended != nil {
				if !errors.Is(ended, io.EOF) {
					return ended
				}
				break
			}
			err = stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Data{Data: chunk[:n]}})
		}
		if err == nil {
			err = stream.Send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_End{End: &registryv1.BackupFileEnd{}}})
		}
		// A stream that the server ended says why when its answer is asked for.
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err = stream.CloseAndRecv()
		return err
	})
}

// moved measures what moves a file in or out of a cluster.
func moved(access target.Access, path string, flags int, move func(*driver, *os.File) error) (m Moved, err error) {
	d, err := open(access, Put, 0)
	if err != nil {
		return m, err
	}
	defer d.close()
	file, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := resetPeaks(access.PIDs); err != nil {
		return m, err
	}
	begin := time.Now()
	if err := move(d, file); err != nil {
		return m, fmt.Errorf("%s: %w", access.Kind, err)
	}
	m.Seconds = time.Since(begin).Seconds()
	info, err := file.Stat()
	if err != nil {
		return m, err
	}
	m.Bytes = info.Size()
	m.Peak, err = peak(access.PIDs)
	return m, err
}
