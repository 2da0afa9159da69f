package backups

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/acl"
	"konsul.dev/services/registry/internal/api"
	"konsul.dev/services/registry/internal/audit"
	"konsul.dev/services/registry/internal/backup"
	"konsul.dev/services/registry/internal/changes"
	"konsul.dev/services/registry/internal/member"
)

// listTimeout bounds the wait for each server.
const listTimeout = time.Second

// backupMessage is how many bytes of a backup travel together.
const backupMessage = 256 << 10

// Router finds who answers for a datacenter.
type Router interface {
	Resolve(name string) (string, error)
	Stream(ctx context.Context, target string) (grpc.ClientConnInterface, context.Context, error)
	FarError(ctx context.Context, target string, err error) error
	// Leading returns the way to the leader for a stream; a nil connection when it is this server.
	Leading(ctx context.Context) (grpc.ClientConnInterface, context.Context, error)
}

// Service is the BackupService.
type Service struct {
	registryv1.UnimplementedBackupServiceServer
	*api.Core
	ServerID string
	Router   Router
	Backups  *backup.Manager
	Peers    interface {
		Server(id string) (grpc.ClientConnInterface, error)
	}
	// Servers returns the members of the cluster.
	Servers func() []member.Server
	Log     *slog.Logger
}

// away returns a client of who is to answer for a datacenter, nil when it is this server, and the
// context for calling it.
func (s *Service) away(ctx context.Context, datacenter string) (registryv1.BackupServiceClient, context.Context, string, error) {
	target, err := s.Router.Resolve(datacenter)
	if err != nil {
		return nil, nil, "", err
	}
	var conn grpc.ClientConnInterface
	if target == s.Federation.Datacenter() {
		conn, ctx, err = s.Router.Leading(ctx)
	} else {
		conn, ctx, err = s.Router.Stream(ctx, target)
	}
	if err != nil || conn == nil {
		return nil, ctx, target, err
	}
	return registryv1.NewBackupServiceClient(conn), ctx, target, nil
}

// CreateBackup streams a backup.
func (s *Service) CreateBackup(req *registryv1.CreateBackupRequest, stream grpc.ServerStreamingServer[registryv1.CreateBackupResponse]) error {
	far, ctx, target, err := s.away(stream.Context(), req.GetDatacenter())
	if err != nil {
		return err
	}
	if far != nil {
		farError := func(err error) error { return s.Router.FarError(ctx, target, err) }
		answers, err := far.CreateBackup(ctx, req)
		if err != nil {
			return farError(err)
		}
		return changes.Relay(answers, stream, farError)
	}
	err = s.create(stream.Context(), req, stream)
	s.carriedOut(stream.Context(), registryv1.BackupService_CreateBackup_FullMethodName, acl.Read, err)
	return err
}

// carriedOut notes in the audit log what came of a call that was carried out here.
func (s *Service) carriedOut(ctx context.Context, method string, access acl.Access, err error) {
	e := audit.EntryOf(ctx, method, err)
	e.Resource = acl.Names([]acl.Need{{Resource: acl.Backup, Access: access}})
	s.Audit.Changed(ctx, e)
}

func (s *Service) create(ctx context.Context, req *registryv1.CreateBackupRequest, stream grpc.ServerStreamingServer[registryv1.CreateBackupResponse]) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	file, _, err := s.Backups.Create(ctx, req.GetBase())
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	for {
		// The transport keeps what it was given until it is sent.
		var piece bytes.Buffer
		n, err := io.CopyN(&piece, file, backupMessage)
		if n > 0 {
			if err := stream.Send(&registryv1.CreateBackupResponse{Data: piece.Bytes()}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-s.Draining:
			return changes.Draining()
		default:
		}
	}
}

// RestoreBackup takes the files in, checks them and replaces the state.
func (s *Service) RestoreBackup(stream grpc.ClientStreamingServer[registryv1.RestoreBackupRequest, registryv1.RestoreBackupResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.Invalid("step", "of the first message must be start")
	}
	far, ctx, target, err := s.away(stream.Context(), start.GetDatacenter())
	if err != nil {
		return err
	}
	if far != nil {
		return s.handOn(ctx, target, far, first, stream)
	}
	answer, err := s.restore(ctx, start, stream)
	s.carriedOut(ctx, registryv1.BackupService_RestoreBackup_FullMethodName, acl.Write, err)
	if err != nil {
		return err
	}
	return stream.SendAndClose(answer)
}

func (s *Service) restore(ctx context.Context, start *registryv1.RestoreStart, stream grpc.ClientStreamingServer[registryv1.RestoreBackupRequest, registryv1.RestoreBackupResponse]) (*registryv1.RestoreBackupResponse, error) {
	intake, err := s.Backups.Receive()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := intake.Close(); err != nil {
			s.Log.WarnContext(ctx, "files of a restore were left behind", "error", err)
		}
	}()
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		switch step := message.GetStep().(type) {
		case *registryv1.RestoreBackupRequest_Data:
			_, err = intake.Write(step.Data)
		case *registryv1.RestoreBackupRequest_End:
			err = intake.End()
		default:
			err = fault.Invalid("step", "is neither data nor end")
		}
		if err != nil {
			return nil, err
		}
	}
	return intake.Restore(ctx, backup.Order{Datacenter: start.GetDatacenter(), DryRun: start.GetDryRun(), Caller: rpc.CallerFrom(ctx).Accessor})
}

// handOn passes a restore on to who is to do it.
func (s *Service) handOn(ctx context.Context, target string, far registryv1.BackupServiceClient, first *registryv1.RestoreBackupRequest, from grpc.ClientStreamingServer[registryv1.RestoreBackupRequest, registryv1.RestoreBackupResponse]) error {
	to, err := far.RestoreBackup(ctx)
	if err != nil {
		return s.Router.FarError(ctx, target, err)
	}
	for message := first; ; {
		if to.Send(message) != nil {
			break // Why shows in the answer.
		}
		message, err = from.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	answer, err := to.CloseAndRecv()
	if err != nil {
		return s.Router.FarError(ctx, target, err)
	}
	return from.SendAndClose(answer)
}

// ListBackups returns what the servers have kept.
func (s *Service) ListBackups(ctx context.Context, req *registryv1.ListBackupsRequest) (*registryv1.ListBackupsResponse, error) {
	kept, err := s.Backups.Kept()
	if err != nil {
		return nil, err
	}
	for _, b := range kept {
		b.Server = s.ServerID
	}
	if req.GetOwn() {
		return &registryv1.ListBackupsResponse{Backups: kept}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	servers := s.Servers()
	answers := make([]*registryv1.ListBackupsResponse, len(servers))
	var wg sync.WaitGroup
	for i, server := range servers {
		if server.ID == s.ServerID {
			answers[i] = &registryv1.ListBackupsResponse{Backups: kept}
			continue
		}
		wg.Go(func() {
			if conn, err := s.Peers.Server(server.ID); err == nil {
				// What it does not answer is named as unreachable.
				answers[i], _ = registryv1.NewBackupServiceClient(conn).ListBackups(ctx, &registryv1.ListBackupsRequest{Own: true})
			}
		})
	}
	wg.Wait()
	all := &registryv1.ListBackupsResponse{}
	for i, answer := range answers {
		if answer == nil {
			all.Unreachable = append(all.Unreachable, servers[i].ID)
		}
		all.Backups = append(all.Backups, answer.GetBackups()...)
	}
	return all, nil
}
