package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	etcd "go.etcd.io/etcd/client/v3"

	"konsul.dev/pkg/konsul"
)

const (
	valueBytes = 256
	keys       = 10_000
	startLimit = 60 * time.Second
)

// put writes one key.
type put func(ctx context.Context, key string, value []byte) error

// BenchmarkKVSet writes 256-byte values, fsync on, one server each: a whole konsul datacenter through its
// edge (TLS, token, gateway, registry) beside one etcd in plaintext. The last line of each size is the ratio.
func BenchmarkKVSet(b *testing.B) {
	ours, theirs := startKonsul(b), startEtcd(b)
	for _, clients := range []int{1, 16, 64} {
		var konsulRate, etcdRate float64
		b.Run(fmt.Sprintf("clients=%d/konsul", clients), func(b *testing.B) { konsulRate = drive(b, ours, clients) })
		b.Run(fmt.Sprintf("clients=%d/etcd", clients), func(b *testing.B) { etcdRate = drive(b, theirs, clients) })
		if etcdRate > 0 {
			fmt.Fprintf(os.Stdout, "clients=%d: konsul %.0f/s, etcd %.0f/s, ratio %.2f\n", clients, konsulRate, etcdRate, konsulRate/etcdRate)
		}
	}
}

// drive spreads b.N writes over clients and answers writes per second.
func drive(b *testing.B, set put, clients int) float64 {
	b.Helper()
	value := make([]byte, valueBytes)
	var next atomic.Int64
	done := make(chan error, clients)
	b.ResetTimer()
	start := time.Now()
	for range clients {
		go func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := set(b.Context(), fmt.Sprintf("bench/%d", i%keys), value); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		require.NoError(b, <-done)
	}
	rate := float64(b.N) / time.Since(start).Seconds()
	b.ReportMetric(rate, "writes/s")
	return rate
}

// start runs a program until the benchmark ends.
func start(b *testing.B, path string, args ...string) {
	b.Helper()
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(b.TempDir(), filepath.Base(path)+".log"))
	require.NoError(b, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // a program ended by a signal says so; that is what was asked
		require.NoError(b, log.Close())
	})
}

// until waits for a condition.
func until(b *testing.B, what string, condition func(context.Context) error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), startLimit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			b.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

func startKonsul(b *testing.B) put {
	b.Helper()
	bin, err := filepath.Abs("../../bin")
	require.NoError(b, err)
	dir := b.TempDir()
	secret, err := exec.Command(filepath.Join(bin, "konsulctl"), "secret", "generate").Output()
	require.NoError(b, err, "run `make build` first")
	token := "bench-" + string(secret[:32])
	require.NoError(b, os.WriteFile(filepath.Join(dir, "secret"), secret, 0o600))
	require.NoError(b, os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600))
	host := "127.29.1.1"
	start(b, filepath.Join(bin, "konsul-dc"), "--set", "server.datacenter=bench", "--set", "server.bind_addr="+host,
		"--set", "server.data_dir="+filepath.Join(dir, "data"), "--set", "server.secret_file="+filepath.Join(dir, "secret"),
		"--set", "server.wan.advertise_addr="+host+":8302", "--set", "telemetry.log_level=warn",
		"--set", "registry.initial_management_token_file="+filepath.Join(dir, "token"))
	var client *konsul.Client
	until(b, "konsul serves writes", func(ctx context.Context) error {
		if client == nil {
			var err error
			if client, err = konsul.New(konsul.Config{
				Addresses: []string{"https://" + net.JoinHostPort(host, "8500")}, Token: token,
				CAFile: filepath.Join(dir, "data", "ca", "roots.pem"),
			}); err != nil {
				return err
			}
		}
		_, err := client.KV.Set(ctx, "bench/ready", []byte("x"), nil)
		return err
	})
	b.Cleanup(func() { require.NoError(b, client.Close()) })
	return func(ctx context.Context, key string, value []byte) error {
		_, err := client.KV.Set(ctx, key, value, nil)
		return err
	}
}

func startEtcd(b *testing.B) put {
	b.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		b.Skip("the peer is missing: apt-get install etcd-server")
	}
	address := "http://127.29.1.2:2379"
	start(b, path, "--data-dir", filepath.Join(b.TempDir(), "etcd"), "--listen-client-urls", address, "--advertise-client-urls", address,
		"--listen-peer-urls", "http://127.29.1.2:2380", "--initial-advertise-peer-urls", "http://127.29.1.2:2380",
		"--initial-cluster", "default=http://127.29.1.2:2380", "--log-level", "error")
	client, err := etcd.New(etcd.Config{Endpoints: []string{address}, DialTimeout: startLimit})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, client.Close()) })
	until(b, "etcd serves writes", func(ctx context.Context) error {
		_, err := client.Put(ctx, "bench/ready", "x")
		return err
	})
	return func(ctx context.Context, key string, value []byte) error {
		_, err := client.Put(ctx, key, string(value))
		return err
	}
}
