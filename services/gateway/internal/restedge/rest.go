package restedge

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

const (
	apiPrefix = "/api/v1/"
	kvPrefix  = apiPrefix + "kv/"
	// bootstrapPath makes the first token, and so takes none.
	bootstrapPath = apiPrefix + "acl/bootstrap"
)

// ReasonBodyTooLarge is the reason of a request with too large a body.
const ReasonBodyTooLarge = "BODY_TOO_LARGE"

func newMux(ctx context.Context, conns Conns) (http.Handler, error) {
	none := func(string) (string, bool) { return "", false }
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, jsonMarshaler()),
		runtime.WithMarshalerOption(mimeRaw, rawMarshaler{jsonMarshaler()}),
		runtime.WithUnescapingMode(runtime.UnescapingModeAllCharacters),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		// Headers become metadata by our choice alone: services mark calls between themselves with
		// it.
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithOutgoingTrailerMatcher(none),
		runtime.SetQueryParameterParser(queryParser{}),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
		runtime.WithForwardResponseOption(setHeaders),
	)
	return textOnly(mux), conns.register(ctx, mux)
}

// textOnly refuses what is no text before anybody is called.
func textOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := checkText(r); err != nil {
			refuse(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// checkText refuses paths and parameters that are no text: they could not be encoded for the
// service that would refuse them.
func checkText(r *http.Request) error {
	const remedy = "percent-encode the bytes of UTF-8, such as %C3%A9 for an e with an accent"
	if !utf8.ValidString(r.URL.Path) {
		return fault.Invalid("path", "is not valid UTF-8").WithRemedy(remedy)
	}
	for name, values := range r.URL.Query() {
		if !utf8.ValidString(name + "=" + strings.Join(values, "&")) {
			return fault.Invalid("query", "has a parameter that is not valid UTF-8").WithRemedy(remedy)
		}
	}
	return nil
}

func (e *Edge) serveREST(w http.ResponseWriter, r *http.Request) {
	caller, err := e.authenticate(r)
	if err != nil {
		refuse(w, err)
		return
	}
	// A clone: the request's headers and URL change for the mux, the caller's wrappers still read
	// them.
	r = r.Clone(withCaller(r.Context(), caller))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if serve := e.files(r); serve != nil {
		textOnly(serve).ServeHTTP(w, r)
		return
	}
	hold := e.inflight.hold(caller.Accessor)
	defer hold.end()
	if err := e.readBody(w, r, hold); err != nil {
		refuse(w, err)
		return
	}
	negotiate(r)
	e.rest.ServeHTTP(w, r)
}

// isBootstrap reports whether a request asks for the first token.
func isBootstrap(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.EscapedPath() == bootstrapPath
}

// authenticate checks the token, wherever the client put it, and leaves it where grpc-gateway
// looks.
func (e *Edge) authenticate(r *http.Request) (Caller, error) {
	if isBootstrap(r) {
		r.Header.Del("Authorization")
		return Caller{}, nil
	}
	secret := bearer(r.Header.Get("Authorization"), r.Header.Get(tokenHeader))
	caller, err := e.p.Tokens.Check(r.Context(), secret)
	if err != nil {
		return Caller{}, err
	}
	r.Header.Set("Authorization", "Bearer "+cmp.Or(secret, rpc.AnonymousToken))
	return caller, nil
}

// tooLarge is the answer to a request over gateway.max_request_bytes.
func tooLarge(field string, limit int64) error {
	return fault.New(fault.InvalidArgument, ReasonBodyTooLarge, "is larger than %d bytes", limit).
		WithField(field).WithRemedy("send less, or raise gateway.max_request_bytes")
}

// readBody takes the whole body, so that one that is too large or too slow is refused as that.
func (e *Edge) readBody(w http.ResponseWriter, r *http.Request, hold *hold) error {
	most := e.p.Bounds.MaxRequestBytes
	if isBootstrap(r) {
		most = min(most, bootstrapBytes)
	}
	if r.ContentLength > most {
		return tooLarge("body", most)
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(e.p.Bounds.RequestReadTimeout)) // without it the server's other limits hold
	content, err := io.ReadAll(counted{http.MaxBytesReader(w, r.Body, most), hold})
	var limit *http.MaxBytesError
	if errors.As(err, &limit) {
		return tooLarge("body", most)
	}
	if _, refused := fault.As(err); refused {
		return err
	}
	if err != nil {
		return fault.Invalid("body", "did not arrive").Wrap(err)
	}
	_ = control.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(content))
	return nil
}

// negotiate makes the KV endpoints carry raw bytes where the client speaks no JSON: any body that
// is not JSON is a value, and ?raw, or of a read Accept, asks for one. Everything else is JSON.
func negotiate(r *http.Request) {
	accept := mimeJSON
	if query := r.URL.Query(); strings.HasPrefix(r.URL.Path, kvPrefix) {
		raw := flag(query.Has("raw"), query.Get("raw"))
		switch r.Method {
		case http.MethodGet:
			if raw || accepts(r.Header.Values("Accept"), mimeRaw) {
				accept = mimeRaw
			}
		case http.MethodPut:
			if raw || mediaType(r.Header.Get("Content-Type")) != mimeJSON {
				r.Header.Set("Content-Type", mimeRaw)
			}
		}
	}
	r.Header.Set("Accept", accept)
}

func flag(given bool, value string) bool {
	off, err := strconv.ParseBool(value)
	return given && (err != nil || off)
}

// indexHeader is a read's index, also where an error says that there is nothing yet to read.
const indexHeader = "X-Konsul-Index"

// setHeaders gives the metadata of an answer as headers too, for clients that take raw bytes.
func setHeaders(_ context.Context, w http.ResponseWriter, message proto.Message) error {
	set := func(name string, value any) { w.Header().Set(name, fmt.Sprint(value)) }
	switch m := message.(type) {
	case interface{ GetMeta() *registryv1.QueryMeta }:
		if meta := m.GetMeta(); meta != nil {
			set(indexHeader, meta.GetIndex())
			set("X-Konsul-Datacenter", meta.GetDatacenter())
			set("X-Konsul-Known-Leader", meta.GetKnownLeader())
			set("X-Konsul-Last-Contact", meta.GetLastContactMs())
			if age := meta.GetCopyAge(); age != nil {
				set("X-Konsul-Copy-Age", age.AsDuration().Seconds())
			}
		}
	case interface{ GetMeta() *registryv1.WriteMeta }:
		if meta := m.GetMeta(); meta != nil {
			set(indexHeader, meta.GetIndex())
			set("X-Konsul-Datacenter", meta.GetDatacenter())
		}
	}
	return nil
}
