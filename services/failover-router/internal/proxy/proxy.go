// Package proxy is the failover-router's face for applications without an SDK: an HTTP proxy that
// takes a request for a service by name and sends it to an instance that works.
//
// Instances of the own datacenter are called directly, services of another one through the gateways
// over mutual TLS, with this service's identity; which instance answers there is that gateway's
// choice. A try that failed is repeated elsewhere if that is safe. Safe for concurrent use.
package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/clock"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/failover-router/internal/resolve"
	"konsul.dev/services/failover-router/internal/verdict"
)

// Response headers that say who answered.
const (
	headerDatacenter = "X-Konsul-Datacenter"
	headerInstance   = "X-Konsul-Instance"
)

const instrumentation = "konsul.dev/services/failover-router"

// Resolver returns requests.
type Resolver interface {
	// Resolve fails only if the request is malformed or ctx ends.
	Resolve(ctx context.Context, req verdict.Request, o resolve.Options) (resolve.Result, error)
	// Answers reports whether a datacenter that gossip has lost answers nevertheless.
	Answers(ctx context.Context, datacenter, service string) bool
}

// Params is what a proxy is made of.
type Params struct {
	Datacenter string
	Resolver   Resolver
	Topology   resolve.Topology
	Dialer     Dialer
	// MaxRetries is how often a request is tried again.
	MaxRetries int
	// MaxHops is how many proxies of Konsul a request may pass, this one included.
	MaxHops int
	// EjectFor is how long a target that failed is not used.
	EjectFor time.Duration
	// LocalAge and RemoteAge are how old an answer about the own and other datacenters may be.
	LocalAge, RemoteAge time.Duration
	Telemetry           *obs.Telemetry
	Clock               clock.Clock
	Metrics             *Metrics
}

// Proxy is the handler. Close it when the server that uses it has stopped.
type Proxy struct {
	p         Params
	ejected   *ejection
	flights   *flights
	transport *http.Transport
	reverse   *httputil.ReverseProxy
	tracer    trace.Tracer
}

// New returns a proxy.
func New(p Params) *Proxy {
	proxy := &Proxy{
		p: p, ejected: newEjection(p.Clock, p.EjectFor), flights: newFlights(), transport: p.Dialer.transport(),
		tracer: p.Telemetry.Tracer.Tracer(instrumentation),
	}
	proxy.reverse = &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host, pr.Out.Host = schemeLocal, pr.In.Host, pr.In.Host
			pr.SetXForwarded()
			pr.Out.Header.Set(headerHops, strconv.Itoa(callOf(pr.In.Context()).hops+1))
		},
		Transport:      attempts{proxy},
		ModifyResponse: sign,
		ErrorHandler:   proxy.fail,
		ErrorLog:       slog.NewLogLogger(p.Telemetry.Log.Handler(), slog.LevelDebug),
	}
	return proxy
}

// Close drops idle connections.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// call is what happens to one request; it travels in the request's context.
type call struct {
	req      verdict.Request
	hops     int    // proxies passed before this one
	target   target // who answered
	result   resolve.Result
	failures []failure
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// failure is one try that failed.
type failure struct {
	target target
	err    error
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := wanted(r)
	passed, hopsErr := hops(r)
	if err == nil {
		err = hopsErr
	}
	if err != nil {
		p.p.Metrics.requests.WithLabelValues(outcomeRefused).Inc()
		refuse(w, http.StatusBadRequest, describe(err))
		return
	}
	if passed >= p.p.MaxHops {
		p.p.Metrics.requests.WithLabelValues(outcomeRefused).Inc()
		refuse(w, http.StatusLoopDetected, looped(req.Service))
		return
	}
	ctx := p.p.Telemetry.Propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := p.tracer.Start(ctx, "proxy "+req.Service, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("konsul.service", req.Service)))
	defer span.End()
	p.reverse.ServeHTTP(w, r.WithContext(context.WithValue(ctx, callKey{}, &call{req: req, hops: passed})))
}

const (
	schemeLocal  = "http"
	schemeRemote = "https"
)

// target is where a request can be sent.
type target struct {
	datacenter string
	// instance is empty for another datacenter: its gateway chooses.
	instance string
	scheme   string
	host     string
}

// key names a target for ejection.
func (t target) key() string { return t.datacenter + "/" + t.host }

func (p *Proxy) target(service, datacenter string, instance *registryv1.ServiceInstance) target {
	if datacenter != p.p.Datacenter {
		trustDomain := identity.TrustDomain(p.p.Dialer.Identity.ID().FederationID)
		return target{datacenter: datacenter, scheme: schemeRemote, host: identity.WorkloadSNI(service, datacenter, trustDomain)}
	}
	host := instance.GetService().GetAddress()
	if host == "" {
		host = instance.GetNode().GetAddress()
	}
	return target{
		datacenter: datacenter, instance: instance.GetService().GetId(), scheme: schemeLocal,
		host: net.JoinHostPort(host, strconv.Itoa(int(instance.GetService().GetPort()))),
	}
}

// attempts sends a request to one target after the other.
type attempts struct{ *Proxy }

// RoundTrip implements http.RoundTripper.
func (p attempts) RoundTrip(r *http.Request) (*http.Response, error) {
	c := callOf(r.Context())
	repeatable := idempotent(r)
	body, err := newPayload(r, repeatable)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		to, found, err := p.pick(r.Context(), c)
		switch {
		case err != nil:
			return nil, err
		case !found:
			return nil, errNoInstance
		}
		resp, sent, err := p.send(r, to, body.body())
		if err == nil {
			c.target = to
			p.p.Metrics.answered(to.scheme == schemeLocal)
			return resp, nil
		}
		c.failures = append(c.failures, failure{to, err})
		if r.Context().Err() != nil {
			return nil, err // the caller has gone: nobody is to blame
		}
		if p.ejected.eject(to.key()) {
			p.p.Metrics.ejections.Inc()
			p.p.Telemetry.Log.WarnContext(r.Context(), "proxy target failed; not used for a while",
				obs.KeyTargetDC, to.datacenter, obs.KeyAddress, to.host, obs.KeyError, err)
		}
		if sent && (!repeatable || !body.replayable) {
			return nil, errMaybeSent
		}
		if try >= p.p.MaxRetries {
			return nil, errTriesUsedUp
		}
		p.p.Metrics.retries.Inc()
	}
}

// pick returns where to send a request now. When every target has failed lately, a new request
// tries them nevertheless; one that has failed on them itself does not.
func (p attempts) pick(ctx context.Context, c *call) (target, bool, error) {
	options := resolve.Options{LocalAge: p.p.LocalAge, RemoteAge: p.p.RemoteAge}
	options.Usable = func(dc string, instance *registryv1.ServiceInstance) bool {
		return !p.ejected.out(p.target(c.req.Service, dc, instance).key())
	}
	var err error
	c.result, err = p.p.Resolver.Resolve(ctx, c.req, options)
	if err == nil && len(c.result.Endpoints) == 0 && len(c.failures) == 0 {
		options.Usable = nil
		c.result, err = p.p.Resolver.Resolve(ctx, c.req, options)
	}
	if err != nil || len(c.result.Endpoints) == 0 {
		return target{}, false, err
	}
	e := c.result.Endpoints[rand.IntN(len(c.result.Endpoints))]
	return p.target(c.req.Service, e.Datacenter.Name, e.Instance), true, nil
}

// send tries one target, and says whether it may have seen the request.
func (p attempts) send(r *http.Request, to target, body io.ReadCloser) (resp *http.Response, sent bool, err error) {
	waiting, end := r.Context(), func() {}
	if to.scheme == schemeRemote {
		waiting, end = p.flights.begin(r.Context(), to.datacenter, callOf(r.Context()).req.Service)
	}
	ctx := httptrace.WithClientTrace(waiting, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent = true },
	})
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.Body = to.scheme, to.host, body
	p.p.Telemetry.Propagator.Inject(ctx, propagation.HeaderCarrier(out.Header))
	resp, err = p.transport.RoundTrip(out)
	if err != nil {
		if errors.Is(context.Cause(waiting), errGivenUp) {
			err = errGivenUp
		}
		end()
		return nil, sent, err
	}
	context.AfterFunc(r.Context(), end) // The body is waited for as well.
	return resp, sent, nil
}

// sign says who answered.
func sign(resp *http.Response) error {
	c := callOf(resp.Request.Context())
	resp.Header.Set(headerDatacenter, c.target.datacenter)
	resp.Header.Del(headerInstance)
	if c.target.instance != "" {
		resp.Header.Set(headerInstance, c.target.instance)
	}
	return nil
}
