package restedge

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/rpc"
)

// ReasonNoRoute is the reason of a path that nothing is served at.
const ReasonNoRoute = "NO_ROUTE"

// problem is the body of every refusal.
type problem struct {
	// Code is the gRPC code's name, such as "NotFound".
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Reason  string            `json:"reason,omitempty"`
	Field   string            `json:"field,omitempty"`
	Remedy  string            `json:"remedy,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
}

func writeError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	refuse(w, err)
}

// writeRoutingError returns for paths and methods that grpc-gateway knows nothing about.
func writeRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, status int) {
	switch status {
	case http.StatusMethodNotAllowed:
		refuseWith(w, status, fault.New(fault.Unimplemented, ReasonNoRoute, "%s takes another method than %s", r.URL.Path, r.Method).WithRemedy(docRemedy))
	case http.StatusBadRequest:
		refuseWith(w, status, fault.Invalid("path", "is malformed").WithRemedy(docRemedy))
	default:
		refuseWith(w, http.StatusNotFound, noRoute(r))
	}
}

const docRemedy = "see /openapi.json"

func noRoute(r *http.Request) error {
	return fault.New(fault.NotFound, ReasonNoRoute, "nothing is served at %s %s", r.Method, r.URL.Path).WithRemedy(docRemedy)
}

// refuse writes an error with the HTTP status its code maps to.
func refuse(w http.ResponseWriter, err error) {
	status := runtime.HTTPStatusFromCode(rpc.ToStatus(err).Code())
	if fault.ReasonOf(err) == ReasonBodyTooLarge {
		status = http.StatusRequestEntityTooLarge
	}
	refuseWith(w, status, err)
}

func refuseWith(w http.ResponseWriter, httpStatus int, err error) {
	st := rpc.ToStatus(err)
	if f, ok := malformed(st.Message()); ok {
		st = rpc.ToStatus(f)
	}
	body := problem{Code: st.Code().String(), Message: st.Message()}
	if f, ok := fault.As(rpc.FromStatus(st.Err())); ok {
		body.Reason, body.Field, body.Remedy, body.Meta = f.Reason(), f.Field(), f.Remedy(), f.Meta()
		if f.RetryAfter() > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter().Seconds()))))
		}
	}
	if st.Code() == codes.InvalidArgument && body.Reason == "" {
		body.Reason = fault.ReasonInvalidArgument // grpc-gateway's own, about a part of the path
	}
	if index := body.Meta["index"]; index != "" {
		w.Header().Set(indexHeader, index)
	}
	if httpStatus == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", mimeJSON)
	w.WriteHeader(httpStatus)
	// The client has gone if this fails; nothing is left to tell it.
	_ = json.NewEncoder(w).Encode(body)
}
