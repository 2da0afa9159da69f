package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/loopguard"
	"konsul.dev/services/failover-router/internal/resolve"
)

// Why a request was not answered by an instance.
var (
	errNoInstance  = errors.New("no instance to send the request to")
	errTriesUsedUp = errors.New("every try failed")
	errMaybeSent   = errors.New("an instance failed after it may have seen the request once")
)

// Reasons in the proxy's own error answers.
const (
	reasonNoInstance  = "NO_HEALTHY_INSTANCE"
	reasonTriesUsedUp = "UPSTREAMS_FAILED"
	reasonMaybeSent   = fault.ReasonOutcomeUnknown
	reasonGone        = "CALLER_GONE"
	reasonLoop        = "PROXY_LOOP"
)

// problem is the body of the proxy's own error answers.
type problem struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
	Service string `json:"service,omitempty"`
	// Datacenters says what each datacenter that was asked had to offer.
	Datacenters []asked `json:"datacenters,omitempty"`
	// Tries says where the request was sent and why it failed.
	Tries []tried `json:"tries,omitempty"`
}

type asked struct {
	Datacenter string `json:"datacenter"`
	Endpoints  int    `json:"endpoints"`
	Error      string `json:"error,omitempty"`
}

type tried struct {
	Datacenter string `json:"datacenter"`
	Instance   string `json:"instance,omitempty"`
	Error      string `json:"error"`
}

func describe(err error) problem {
	if f, ok := fault.As(err); ok {
		return problem{Reason: f.Reason(), Message: f.Message(), Field: f.Field(), Remedy: f.Remedy()}
	}
	return problem{Reason: reasonGone, Message: "the request ended before an instance answered"}
}

// fail returns a request that no instance answered. The proxy's applications are on this host, so
// they are told what went wrong at each target.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	c := callOf(r.Context())
	body, status := describe(err), http.StatusServiceUnavailable
	switch {
	case len(c.failures) > 0 && !slices.ContainsFunc(c.failures, func(f failure) bool { return !errors.Is(f.err, loopguard.ErrOwnAddress) }):
		body, status = looped(c.req.Service), http.StatusLoopDetected
	case errors.Is(err, errNoInstance):
		body = problem{Reason: reasonNoInstance, Message: "no datacenter has a healthy instance of " + c.req.Service}
	case errors.Is(err, errTriesUsedUp):
		body = problem{Reason: reasonTriesUsedUp, Message: "every instance of " + c.req.Service + " that was tried failed"}
	case errors.Is(err, errMaybeSent):
		status = http.StatusBadGateway
		body = problem{
			Reason: reasonMaybeSent, Message: "an instance of " + c.req.Service + " failed after it may have seen the request",
			Remedy: "send an Idempotency-Key header with requests that may be repeated",
		}
	}
	body.Service = c.req.Service
	for _, o := range c.result.Outcomes {
		body.Datacenters = append(body.Datacenters, asked{o.Datacenter, o.Endpoints, resolve.Describe(o.Err)})
	}
	for _, f := range c.failures {
		body.Tries = append(body.Tries, tried{f.target.datacenter, f.target.instance, f.err.Error()})
	}
	p.p.Metrics.requests.WithLabelValues(outcomeFailed).Inc()
	refuse(w, status, body)
}

// looped describes a request that went, or would go, round in circles.
func looped(service string) problem {
	return problem{
		Reason: reasonLoop, Message: service + " leads back to a proxy of Konsul", Service: service,
		Remedy: "look for an instance that is registered at the address of a proxy: konsulctl service get " + service,
	}
}

func refuse(w http.ResponseWriter, status int, body problem) {
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	// The client has gone if this fails; nothing is left to tell it.
	_ = json.NewEncoder(w).Encode(map[string]problem{"error": body})
}
