package attack

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/identity"
	"konsul.dev/tests/framework"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

// The services a datacenter can have; each is the program konsul-NAME.
const (
	CA             = "ca"
	Registry       = "registry"
	Gateway        = "gateway"
	WANGossip      = "wan-gossip"
	Replicator     = "replicator"
	FailoverRouter = "failover-router"
	Agent          = "agent"
)

// Options says what to start.
type Options struct {
	// Services are those to start; empty: ca, registry and gateway.
	Services []string
	// Settings are key=value pairs for every service, as after --set.
	Settings []string
}

// Datacenter is a running primary, alone in its federation, with a process for each service.
type Datacenter struct {
	// Host is the loopback address of all its listeners, with the default ports.
	Host string
	// Dir holds konsul.yaml, secrets, the data and the logs.
	Dir string

	t     *testing.T
	token string
	// pids has the process of each service.
	pids map[string]int
}

// Start starts a datacenter and waits until its gateway, if it has one, serves holders of a token.
// It is stopped when the test ends.
func Start(t *testing.T, o Options) *Datacenter {
	t.Helper()
	if len(o.Services) == 0 {
		o.Services = []string{CA, Registry, Gateway}
	}
	d := &Datacenter{
		Host: framework.FreeNetwork(t) + ".1", Dir: t.TempDir(), t: t, pids: map[string]int{}, token: identity.NewSecret(),
	}
	d.write("secret", identity.NewSecret())
	d.write("management-token", d.token)
	d.write("konsul.yaml", fmt.Sprintf(`
server:
  datacenter: us-east
  node: us-east-1
  bind_addr: %[1]s
  data_dir: %[2]s/data
  secret_file: %[2]s/secret
  wan: {enabled: true, advertise_addr: "%[1]s:8302"}
telemetry: {log_format: text}
registry: {initial_management_token_file: %[2]s/management-token}
`, d.Host, d.Dir))
	for _, service := range o.Services {
		d.start(service, o.Settings)
	}
	for _, service := range o.Services {
		if service == Gateway {
			d.waitServing()
		}
	}
	return d
}

func (d *Datacenter) write(name, text string) {
	d.t.Helper()
	require.NoError(d.t, os.WriteFile(filepath.Join(d.Dir, name), []byte(text), 0o600))
}

func (d *Datacenter) start(service string, settings []string) {
	d.t.Helper()
	log, err := os.Create(filepath.Join(d.Dir, service+".log"))
	require.NoError(d.t, err)
	args := []string{"--config", filepath.Join(d.Dir, "konsul.yaml")}
	for _, setting := range settings {
		args = append(args, "--set", setting)
	}
	cmd := exec.Command(framework.Bin(d.t, "konsul-"+service), args...)
	cmd.Stdout, cmd.Stderr = log, log
	// It must not outlive a test binary that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(d.t, cmd.Start())
	d.pids[service] = cmd.Process.Pid
	exited := make(chan struct{})
	var once sync.Once
	go func() {
		defer once.Do(func() { close(exited) })
		_ = cmd.Wait() // Its log says why.
	}()
	d.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // It may have ended by itself.
		timer := time.NewTimer(stopTimeout)
		defer timer.Stop()
		select {
		case <-exited:
		case <-timer.C:
			d.t.Errorf("%s did not stop within %s", service, stopTimeout)
			_ = cmd.Process.Kill()
			<-exited
		}
		_ = log.Close()
		if d.t.Failed() {
			d.t.Logf("log of %s:\n%s", service, d.logTail(service))
		}
	})
}

// logTail returns the end of a service's log.
func (d *Datacenter) logTail(service string) []byte {
	const most = 8 << 10
	text := d.Log(service)
	return text[max(0, len(text)-most):]
}

// Log returns what a service has logged so far.
func (d *Datacenter) Log(service string) []byte {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.Dir, service+".log"))
	require.NoError(d.t, err)
	return text
}

func (d *Datacenter) waitServing() {
	d.t.Helper()
	framework.Eventually(d.t, startTimeout, "the gateway serves", func() error {
		if _, err := os.Stat(d.rootsFile()); err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "https://"+d.Addr(config.PortHTTP)+"/api/v1/acl/self", nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+d.token)
		response, err := d.Access().HTTP(d.t).Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("the gateway answers %s", response.Status)
		}
		return nil
	})
}

// Pid returns the process of a service.
func (d *Datacenter) Pid(service string) int {
	d.t.Helper()
	pid, ok := d.pids[service]
	require.Truef(d.t, ok, "%s was not started", service)
	return pid
}

// Addr returns where the datacenter listens on a port, such as config.PortHTTP.
func (d *Datacenter) Addr(port int) string { return d.Host + ":" + strconv.Itoa(port) }

func (d *Datacenter) rootsFile() string { return filepath.Join(d.Dir, "data", CA, "roots.pem") }

// Access returns how the holder of a management token reaches the datacenter.
func (d *Datacenter) Access() framework.Access {
	return framework.Access{Addr: "https://" + d.Addr(config.PortHTTP), Token: d.token, CAFile: d.rootsFile()}
}

// Certificate returns the certificate and key of a service, waiting until it has some: the attacker
// has broken into that service's host.
func (d *Datacenter) Certificate(service string) tls.Certificate {
	d.t.Helper()
	var found tls.Certificate
	framework.Eventually(d.t, startTimeout, service+" has a certificate", func() error {
		text, err := os.ReadFile(filepath.Join(d.Dir, "data", service, "identity.pem"))
		if err != nil {
			return err
		}
		var chain, key bytes.Buffer
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			switch block.Type {
			case "CERTIFICATE":
				err = pem.Encode(&chain, block)
			case "PRIVATE KEY":
				err = pem.Encode(&key, block)
			}
			if err != nil {
				return err
			}
		}
		found, err = tls.X509KeyPair(chain.Bytes(), key.Bytes())
		return err
	})
	return found
}

// Roots returns the federation's trust anchors.
func (d *Datacenter) Roots() *x509.CertPool {
	d.t.Helper()
	text, err := os.ReadFile(d.rootsFile())
	require.NoError(d.t, err)
	pool := x509.NewCertPool()
	require.True(d.t, pool.AppendCertsFromPEM(text))
	return pool
}
