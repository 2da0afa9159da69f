package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
	"konsul.dev/services/gateway"
)

// mayBackUp stands for the registry's own check.
func mayBackUp(ctx context.Context, access string) error {
	if rpc.Token(ctx) == token {
		return nil
	}
	return fault.New(fault.PermissionDenied, "PERMISSION_DENIED", "the token lacks backup:%s", access).WithMeta("permission", "backup:"+access)
}

// CreateBackup streams what the test put there.
func (d *datacenter) CreateBackup(req *registryv1.CreateBackupRequest, stream grpc.ServerStreamingServer[registryv1.CreateBackupResponse]) error {
	if err := mayBackUp(stream.Context(), "read"); err != nil {
		return err
	}
	d.mu.Lock()
	d.bases = append(d.bases, req)
	file, cut := d.backup, d.cut
	d.mu.Unlock()
	for sent := 0; len(file) > 0; {
		n := min(len(file), 256<<10)
		if err := stream.Send(&registryv1.CreateBackupResponse{Data: file[:n]}); err != nil {
			return err
		}
		if file, sent = file[n:], sent+n; cut > 0 && sent >= cut {
			return fault.New(fault.Aborted, "STATE_REPLACED", "the state was replaced while it was backed up")
		}
	}
	return nil
}

// RestoreBackup keeps what comes in.
func (d *datacenter) RestoreBackup(stream grpc.ClientStreamingServer[registryv1.RestoreBackupRequest, registryv1.RestoreBackupResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := mayBackUp(stream.Context(), "write"); err != nil {
		return err
	}
	var files [][]byte
	var file []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if file = append(file, m.GetData()...); m.GetEnd() != nil {
			files, file = append(files, file), nil
		}
		if bytes.HasPrefix(file, []byte("damaged")) {
			return fault.New(fault.DataLoss, "BACKUP_DAMAGED", "the backup is damaged")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.restored, d.started = append(d.restored, files...), append(d.started, first.GetStart())
	return stream.SendAndClose(&registryv1.RestoreBackupResponse{Datacenter: d.name, SourceDatacenter: west, Index: 9, DryRun: first.GetStart().GetDryRun()})
}

// took returns what has been restored.
func (d *datacenter) took() ([][]byte, []*registryv1.RestoreStart) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.restored, d.started
}

// large is more than any other request may be.
func large() []byte {
	file := make([]byte, 5<<20+7)
	_, _ = rand.NewChaCha8([32]byte{}).Read(file) // It cannot fail.
	return file
}

func smallRequests(cfg *gateway.Config) { cfg.Gateway.MaxRequestBytes = 1 << 20 }

func TestABackupIsDownloadedOverREST(t *testing.T) {
	d, r := newEdge(t, smallRequests)
	d.backup = large()
	for name, client := range map[string]rest{"HTTP/1.1": r.rest(t, false), "HTTP/2": r.rest(t, true)} {
		t.Run(name, func(t *testing.T) {
			got := client.do(t, http.MethodPost, "/api/v1/backups?datacenter=us-west&base.id=b1&base.index=41&base.generation=2", nil)
			require.Equal(t, http.StatusOK, got.status, got.body)
			require.True(t, bytes.Equal(d.backup, []byte(got.body)), "%d of %d bytes", len(got.body), len(d.backup))
			require.Equal(t, "application/gzip", got.header.Get("Content-Type"))
			require.Equal(t, "no-store", got.header.Get("Cache-Control"))
			want := &registryv1.CreateBackupRequest{Datacenter: west, Base: &registryv1.BackupBase{Id: "b1", Index: 41, Generation: 2}}
			d.mu.Lock()
			defer d.mu.Unlock()
			require.Empty(t, cmp.Diff(want, d.bases[len(d.bases)-1], protocmp.Transform()))
		})
	}
}

func TestABackupThatIsCutOffDoesNotLookWhole(t *testing.T) {
	d, r := newEdge(t)
	d.backup, d.cut = large(), 1<<20
	for name, client := range map[string]rest{"HTTP/1.1": r.rest(t, false), "HTTP/2": r.rest(t, true)} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, client.base+"/api/v1/backups", nil)
			require.NoError(t, err)
			request.Header.Set("Authorization", "Bearer "+token)
			response, err := client.client.Do(request)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.Error(t, err)
			require.NoError(t, response.Body.Close())
		})
	}
}

func TestABackupIsRestoredOverREST(t *testing.T) {
	d, r := newEdge(t, smallRequests)
	full, increment := large(), []byte("increment")
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for _, file := range [][]byte{full, increment} {
		part, err := w.CreateFormFile("file", "x.tar.gz")
		require.NoError(t, err)
		_, err = part.Write(file)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	for name, client := range map[string]rest{"HTTP/1.1": r.rest(t, false), "HTTP/2": r.rest(t, true)} {
		t.Run(name, func(t *testing.T) {
			d.mu.Lock()
			d.restored, d.started = nil, nil
			d.mu.Unlock()
			got := client.do(t, http.MethodPut, "/api/v1/backups/restore?datacenter=us-east&dry_run", bytes.NewReader(full))
			require.Equal(t, http.StatusOK, got.status, got.body)
			var answer map[string]any
			require.NoError(t, json.Unmarshal([]byte(got.body), &answer))
			require.Equal(t, "9", answer["index"])
			require.Equal(t, west, answer["source_datacenter"])
			restored, started := d.took()
			require.True(t, bytes.Equal(full, restored[0]))
			require.Empty(t, cmp.Diff(&registryv1.RestoreStart{Datacenter: east, DryRun: true}, started[0], protocmp.Transform()))

			got = client.do(t, http.MethodPut, "/api/v1/backups/restore", bytes.NewReader(form.Bytes()), "Content-Type", w.FormDataContentType())
			require.Equal(t, http.StatusOK, got.status, got.body)
			restored, _ = d.took()
			require.Len(t, restored, 3)
			require.True(t, bytes.Equal(full, restored[1]))
			require.Equal(t, increment, restored[2])
		})
	}
}

func TestBackupsOverRESTAreRefusedLikeEveryCall(t *testing.T) {
	d, r := newEdge(t)
	d.backup = []byte("never seen")
	client := r.rest(t, true)
	const create, restore = "POST /api/v1/backups", "PUT /api/v1/backups/restore"
	for name, c := range map[string]struct {
		call, query, body string
		header            []string
		status            int
		reason            string
	}{
		"create without a token":      {create, "", "", []string{"Authorization", ""}, http.StatusUnauthorized, "TOKEN_REQUIRED"},
		"restore without a token":     {restore, "", "file", []string{"Authorization", ""}, http.StatusUnauthorized, "TOKEN_REQUIRED"},
		"create with a stranger's":    {create, "", "", []string{"Authorization", "Bearer nobody's"}, http.StatusUnauthorized, "TOKEN_UNKNOWN"},
		"create without the right":    {create, "", "", []string{"Authorization", "Bearer " + plainToken}, http.StatusForbidden, "PERMISSION_DENIED"},
		"restore without the right":   {restore, "", strings.Repeat("file", 100_000), []string{"Authorization", "Bearer " + plainToken}, http.StatusForbidden, "PERMISSION_DENIED"},
		"a misspelt parameter":        {restore, "?dryrun", "file", nil, http.StatusBadRequest, "INVALID_ARGUMENT"},
		"a parameter that is wrong":   {create, "?base.index=x", "", nil, http.StatusBadRequest, "INVALID_ARGUMENT"},
		"a parameter that is no text": {create, "?datacenter=%ff", "", nil, http.StatusBadRequest, "INVALID_ARGUMENT"},
		"a damaged file":              {restore, "", "damaged" + strings.Repeat("x", 3<<20), nil, http.StatusInternalServerError, "BACKUP_DAMAGED"},
		"a form without a boundary":   {restore, "", "file", []string{"Content-Type", "multipart/form-data"}, http.StatusBadRequest, "INVALID_ARGUMENT"},
		"a form that is cut off":      {restore, "", "--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\nfile", []string{"Content-Type", "multipart/form-data; boundary=b"}, http.StatusBadRequest, "INVALID_ARGUMENT"},
		"a form with something else":  {restore, "", "--b\r\nContent-Disposition: form-data; name=dry_run\r\n\r\ntrue\r\n--b--\r\n", []string{"Content-Type", "multipart/form-data; boundary=b"}, http.StatusBadRequest, "INVALID_ARGUMENT"},
		"another method":              {"GET /api/v1/backups/restore", "", "", nil, http.StatusNotFound, "NO_ROUTE"},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, _ := strings.Cut(c.call, " ")
			got := client.do(t, method, path+c.query, strings.NewReader(c.body), c.header...)
			require.Equal(t, c.status, got.status, got.body)
			require.Equal(t, c.reason, got.problem(t)["reason"], got.body)
			require.NotContains(t, got.body, "never seen")
		})
	}
	restored, _ := d.took()
	require.Empty(t, restored)
}

func TestAnUploadThatBreaksOffRestoresNothing(t *testing.T) {
	d, r := newEdge(t)
	client := r.rest(t, false)
	body, writer := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, client.base+"/api/v1/backups/restore", body)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	request.ContentLength = 1 << 20
	go func() {
		_, _ = writer.Write(make([]byte, 1<<19)) // The other end may be gone.
		_ = writer.CloseWithError(errors.New("the disk is gone"))
	}()
	response, err := client.client.Do(request)
	if err == nil {
		require.Equal(t, http.StatusBadRequest, response.StatusCode)
		require.NoError(t, response.Body.Close())
	}
	restored, _ := d.took()
	require.Empty(t, restored)
}
