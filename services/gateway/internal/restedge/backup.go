package restedge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

const (
	// backupsPath takes POST, which makes a backup and returns its file.
	backupsPath = apiPrefix + "backups"
	// restorePath takes PUT with the file, or several as a form.
	restorePath = backupsPath + "/restore"

	mimeBackup = "application/gzip"
	mimeForm   = "multipart/form-data"

	// backupPiece is how many bytes of a file travel together.
	backupPiece = 256 << 10
	// stallTimeout is how long a file may stand still on its way.
	stallTimeout = 30 * time.Second
)

// files returns what serves a request that carries a file of any size, nil when it is none: the
// file goes on as it comes, and no limit of other requests holds for it.
func (e *Edge) files(r *http.Request) http.Handler {
	switch {
	case r.Method == http.MethodPost && r.URL.Path == backupsPath:
		return refusing(e.createBackup)
	case r.Method == http.MethodPut && r.URL.Path == restorePath:
		return refusing(e.restoreBackup)
	}
	return nil
}

// refusing is a handler that answers its error.
type refusing func(http.ResponseWriter, *http.Request) error

// ServeHTTP implements http.Handler.
func (f refusing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := f(w, r); err != nil {
		refuse(w, err)
	}
}

// parse fills a request of the query's parameters.
func parse(r *http.Request, into proto.Message) error {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err == nil {
		err = queryParser{}.Parse(into, values, utilities.NewDoubleArray(nil))
	}
	if err == nil {
		return nil
	}
	if f, ok := malformed(err.Error()); ok {
		return f
	}
	return fault.Invalid("query", "is malformed").WithRemedy("percent-encode what is no letter, digit, dot, dash or underscore").Wrap(err)
}

// asCaller is the context of a call for the request's caller.
func asCaller(ctx context.Context) context.Context {
	return rpc.WithToken(ctx, cmp.Or(callerFrom(ctx).secret, rpc.AnonymousToken))
}

// createBackup streams a backup. What fails before its first byte is refused like any call; later
// the connection is cut, and the file says that it is not whole.
func (e *Edge) createBackup(w http.ResponseWriter, r *http.Request) error {
	req := &registryv1.CreateBackupRequest{}
	if err := parse(r, req); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(asCaller(r.Context()))
	defer cancel()
	stream, err := registryv1.NewBackupServiceClient(e.p.Conns.Registry).CreateBackup(ctx, req)
	if err != nil {
		return err
	}
	message, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return errors.New("the registry answered an empty backup")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mimeBackup)
	w.Header().Set("Content-Disposition", `attachment; filename="backup.tar.gz"`)
	control := http.NewResponseController(w)
	for err == nil {
		_ = control.SetWriteDeadline(time.Now().Add(stallTimeout)) // without it the stream's end alone ends the call
		if _, failed := w.Write(message.GetData()); failed != nil {
			return nil //nolint:nilerr // the client has gone; nobody is left to tell
		}
		message, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		e.p.Telemetry.Log.WarnContext(ctx, "a backup was cut off", "error", err)
		panic(http.ErrAbortHandler) // The status has been sent: this is how HTTP says that there is no more.
	}
	_ = control.SetWriteDeadline(time.Time{})
	return nil
}

// restoreBackup hands a backup, and the increments on it, to the registry.
func (e *Edge) restoreBackup(w http.ResponseWriter, r *http.Request) error {
	start := &registryv1.RestoreStart{}
	if err := parse(r, start); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(asCaller(r.Context()))
	defer cancel()
	stream, err := registryv1.NewBackupServiceClient(e.p.Conns.Registry).RestoreBackup(ctx)
	if err != nil {
		return err
	}
	send := func(m *registryv1.RestoreBackupRequest) error {
		if stream.Send(m) != nil {
			return errRefused
		}
		return nil
	}
	body := patient{r.Body, http.NewResponseController(w)}
	err = send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Start{Start: start}})
	if err == nil {
		err = eachFile(r.Header.Get("Content-Type"), body, func(file io.Reader) error { return sendFile(file, send) })
	}
	if err != nil && !errors.Is(err, errRefused) {
		return err // The registry hears the end of the call and changes nothing.
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	text, err := jsonMarshaler().Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", mimeJSON)
	_, _ = w.Write(text) // the client has gone if this fails
	return nil
}

// errRefused says that the registry wants no more; its answer says why.
var errRefused = errors.New("refused")

// patient reads a body whose end may be far off, as long as it comes.
type patient struct {
	io.Reader
	control *http.ResponseController
}

// Read implements io.Reader.
func (p patient) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(stallTimeout)) // without it the client's pings tell whether it is there
	n, err := p.Reader.Read(b)
	if err != nil {
		_ = p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// eachFile calls do with the file of a body, or one after the other with those of a form.
func eachFile(contentType string, body io.Reader, do func(io.Reader) error) error {
	if mediaType(contentType) != mimeForm {
		return do(body)
	}
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil || params["boundary"] == "" {
		return fault.Invalid("Content-Type", "names no boundary").WithRemedy("let the client make it, such as curl -F file=@backup.tar.gz")
	}
	form := multipart.NewReader(body, params["boundary"])
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return notArrived(err)
		}
		if part.FileName() == "" || !strings.EqualFold(part.FormName(), "file") {
			return fault.Invalid("body", "has a part %q that is no file", part.FormName()).WithRemedy("send parts named file alone, the full backup first")
		}
		if err := do(part); err != nil {
			return err
		}
	}
}

func notArrived(err error) error { return fault.Invalid("body", "did not arrive").Wrap(err) }

// sendFile sends a file and its end.
func sendFile(file io.Reader, send func(*registryv1.RestoreBackupRequest) error) error {
	for {
		piece := make([]byte, backupPiece)
		n, err := fill(file, piece)
		if n > 0 {
			if err := send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_Data{Data: piece[:n]}}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return send(&registryv1.RestoreBackupRequest{Step: &registryv1.RestoreBackupRequest_End{End: &registryv1.BackupFileEnd{}}})
		}
		if err != nil {
			return notArrived(err)
		}
	}
}

// fill reads until piece is full. Unlike io.ReadFull it tells a body that was cut off from one that
// ended.
func fill(r io.Reader, piece []byte) (n int, err error) {
	for n < len(piece) && err == nil {
		var more int
		more, err = r.Read(piece[n:])
		n += more
	}
	return n, err
}
