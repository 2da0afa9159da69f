package framework

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/konsul"
)

const requestTimeout = 20 * time.Second

// Access is how a person reaches a datacenter: what its env file says.
type Access struct {
	Addr, Token, CAFile string
}

// ReadEnv reads the KONSUL_ variables of an env file.
func ReadEnv(t *testing.T, path string) Access {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			values[name] = strings.Trim(value, `"'`)
		}
	}
	access := Access{Addr: values["KONSUL_ADDR"], Token: values["KONSUL_TOKEN"], CAFile: values["KONSUL_CA_FILE"]}
	require.NotEmpty(t, access.Addr)
	require.NotEmpty(t, access.Token)
	require.NotEmpty(t, access.CAFile)
	return access
}

// Access returns how to reach a datacenter of the lab.
func (l *Lab) Access(dc string) Access {
	l.t.Helper()
	return ReadEnv(l.t, filepath.Join(l.Dir, dc+".env"))
}

// Result is what a command printed and how it ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// CTL runs konsulctl against a datacenter.
func (a Access) CTL(t *testing.T, args ...string) Result {
	t.Helper()
	return a.CTLInput(t, "", args...)
}

// CTLInput runs konsulctl with something on its standard input.
func (a Access) CTLInput(t *testing.T, input string, args ...string) Result {
	t.Helper()
	cmd := exec.Command(Bin(t, "konsulctl"), args...)
	cmd.Env = append(os.Environ(), "KONSUL_ADDR="+a.Addr, "KONSUL_TOKEN="+a.Token, "KONSUL_CA_FILE="+a.CAFile)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run konsulctl %v: %v", args, err)
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// MustCTL runs konsulctl and fails the test unless it succeeds.
func (a Access) MustCTL(t *testing.T, args ...string) string {
	t.Helper()
	result := a.CTL(t, args...)
	require.Zerof(t, result.Code, "konsulctl %v: exit %d\n%s%s", args, result.Code, result.Stdout, result.Stderr)
	return result.Stdout
}

// Client returns an SDK client of a datacenter, closed when the test ends.
func (a Access) Client(t *testing.T) *konsul.Client {
	t.Helper()
	client, err := konsul.New(konsul.Config{Addresses: strings.Split(a.Addr, ","), Token: a.Token, CAFile: a.CAFile})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// HTTP returns an HTTPS client that trusts the federation's roots.
func (a Access) HTTP(t *testing.T) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(a.CAFile)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: requestTimeout}
}

// Reply is an answer over REST.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// REST sends one request to the datacenter's REST edge, with the token unless header has another
// Authorization.
func (a Access) REST(t *testing.T, method, path string, body []byte, header http.Header) Reply {
	t.Helper()
	calls.note(method, path)
	request, err := http.NewRequestWithContext(t.Context(), method, strings.Split(a.Addr, ",")[0]+path, bytes.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+a.Token)
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := a.HTTP(t).Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return Reply{Status: response.StatusCode, Header: response.Header, Body: content}
}
