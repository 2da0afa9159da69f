package proxy

import (
	"bytes"
	"io"
	"net/http"
	"slices"
)

// maxReplay is how much of a body is kept for another try; a longer one is sent once.
const maxReplay = 64 << 10

// payload is a request's body, ready for more than one try where that is possible.
type payload struct {
	original io.ReadCloser
	kept     []byte
	// replayable says that kept is the whole body.
	replayable bool
	prefix     io.Reader // kept, then the rest, when not replayable
}

// newPayload reads the beginning of a body if another try may want it.
func newPayload(r *http.Request, repeatable bool) (*payload, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return &payload{replayable: true}, nil
	}
	p := &payload{original: r.Body, prefix: r.Body}
	if !repeatable {
		return p, nil
	}
	kept, err := io.ReadAll(io.LimitReader(r.Body, maxReplay+1))
	if err != nil {
		return nil, err
	}
	p.kept, p.replayable = kept, len(kept) <= maxReplay
	p.prefix = io.MultiReader(bytes.NewReader(kept), r.Body)
	return p, nil
}

// body returns the body for one try. The transport may close it; the original is closed by who
// opened it.
func (p *payload) body() io.ReadCloser {
	switch {
	case p.original == nil:
		return http.NoBody
	case p.replayable:
		return io.NopCloser(bytes.NewReader(p.kept))
	default:
		return io.NopCloser(p.prefix)
	}
}

// idempotent reports whether doing a request twice is as good as doing it once (RFC 9110, section
// 9.2.2), or whether the caller has made it so.
func idempotent(r *http.Request) bool {
	methods := []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete}
	return slices.Contains(methods, r.Method) || r.Header.Get("Idempotency-Key") != ""
}
