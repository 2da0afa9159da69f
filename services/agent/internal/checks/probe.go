package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"

	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"

	"konsul.dev/pkg/servicedef"
	"konsul.dev/services/agent/internal/local"
)

// Statuses, shortened.
const (
	passing  = registryv1.HealthStatus_HEALTH_STATUS_PASSING
	warning  = registryv1.HealthStatus_HEALTH_STATUS_WARNING
	critical = registryv1.HealthStatus_HEALTH_STATUS_CRITICAL
)

const (
	maxBody      = 4 << 10
	maxOutput    = 256
	maxRedirects = 5
)

// Prober runs single HTTP and TCP checks. Safe for concurrent use.
type Prober struct {
	dialer net.Dialer
	client *http.Client
}

// NewProber returns a prober. It opens a fresh connection for every probe: a service that accepts
// none is down, however well an old one works.
func NewProber() *Prober {
	p := &Prober{}
	p.client = &http.Client{
		Transport: &http.Transport{DialContext: p.dialer.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) >= maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return nil
		},
	}
	return p
}

// Probe runs an HTTP or TCP check once, at most for its timeout.
func (p *Prober) Probe(ctx context.Context, check servicedef.Check) local.Outcome {
	ctx, cancel := context.WithTimeout(ctx, check.Timeout)
	defer cancel()
	if check.TCP != "" {
		return p.tcp(ctx, check)
	}
	return p.http(ctx, check)
}

func (p *Prober) tcp(ctx context.Context, check servicedef.Check) local.Outcome {
	conn, err := p.dialer.DialContext(ctx, "tcp", check.TCP)
	if err != nil {
		return failed("TCP connect "+check.TCP, err, check.Timeout)
	}
	// It was opened to see that it opens.
	_ = conn.Close()
	return local.Outcome{Status: passing, Output: "TCP connect " + check.TCP + ": success"}
}

func (p *Prober) http(ctx context.Context, check servicedef.Check) local.Outcome {
	what := "HTTP GET " + check.HTTP
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, check.HTTP, http.NoBody)
	if err != nil {
		return failed(what, err, check.Timeout)
	}
	request.Header.Set("User-Agent", "konsul-agent")
	response, err := p.client.Do(request)
	if err != nil {
		return failed(what, err, check.Timeout)
	}
	defer func() { _ = response.Body.Close() }()
	// A service that sends its head and then hangs is not well, so the body is read, too.
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return failed(what, err, check.Timeout)
	}
	outcome := local.Outcome{Status: critical, Output: what + ": " + response.Status}
	switch {
	case response.StatusCode >= http.StatusOK && response.StatusCode < http.StatusMultipleChoices:
		// The body of a healthy service often changes (a clock, a counter); it would make every run
		// news.
		outcome.Status = passing
		return outcome
	case response.StatusCode == http.StatusTooManyRequests:
		outcome.Status = warning
	}
	if text := oneLine(string(body)); text != "" {
		outcome.Output += ": " + text
	}
	outcome.Output = shorten(outcome.Output)
	return outcome
}

func failed(what string, err error, timeout time.Duration) local.Outcome {
	reason := err.Error()
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		reason = fmt.Sprintf("no answer within %s", timeout)
	case errors.As(err, &op):
		// Without the ephemeral port, which would be another one each time.
		reason = op.Err.Error()
	}
	return local.Outcome{Status: critical, Output: shorten(what + ": " + oneLine(reason))}
}

func oneLine(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}

func shorten(text string) string {
	if runes := []rune(text); len(runes) > maxOutput {
		return string(runes[:maxOutput-1]) + "…"
	}
	return text
}
