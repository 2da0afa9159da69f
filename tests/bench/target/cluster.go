package target

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// servers is the size of every cluster.
	servers = 3
	// blockBytes is the unit in which a file's size on disk is told.
	blockBytes = 512
)

// Kind is what a target runs.
type Kind string

// The kinds.
const (
	Konsul Kind = "konsul"
	Etcd   Kind = "etcd"
	Limit  Kind = "limit"
)

// Token is the management token that calls to ours carry.
const Token = "bench-management-token-0123456789abcdef"

// Access is how a client reaches a target; it is handed to the load generator.
type Access struct {
	Kind Kind
	// Addresses are the servers', host:port.
	Addresses []string
	// Credentials is nil when the target speaks plaintext.
	Credentials *Credentials
	// PIDs are the server processes.
	PIDs []int
}

// Cluster is a running target.
type Cluster struct {
	Name    string
	Servers []*Process
	access  Access
}

// Options say how targets are run.
type Options struct {
	// Dir holds everything of the cluster.
	Dir string
	// Self is this program, EtcdPath etcd's.
	Self, EtcdPath string
	// Plaintext leaves TLS out, where the target can do without.
	Plaintext bool
	// Profiles, if set, is where our servers write CPU profiles.
	Profiles string
}

// Prepare lays a target out without starting it.
func Prepare(kind Kind, o Options) (*Cluster, error) {
	keys, err := newPKI(filepath.Join(o.Dir, "pki"))
	if err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(3 * servers)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Name: string(kind), access: Access{Kind: kind, Addresses: addresses[:servers], Credentials: &keys.gateway}}
	peers, others := addresses[servers:2*servers], addresses[2*servers:]
	if o.Plaintext {
		c.Name += " plaintext"
		c.access.Credentials = nil
	}
	switch kind {
	case Konsul:
		err = c.prepareKonsul(o, keys, peers)
	case Etcd:
		c.prepareEtcd(o, keys, peers, others)
	case Limit:
		err = c.prepareLimit(o, keys)
	}
	return c, err
}

// Start starts every server; none is waited for.
func (c *Cluster) Start() error {
	for _, s := range c.Servers {
		if err := s.Start(); err != nil {
			return errors.Join(err, c.Stop())
		}
	}
	return nil
}

// Stop ends every server.
func (c *Cluster) Stop() error {
	var errs []error
	for _, s := range c.Servers {
		errs = append(errs, s.Stop())
	}
	return errors.Join(errs...)
}

// Kill ends every server at once.
func (c *Cluster) Kill() {
	for _, s := range c.Servers {
		s.Kill()
	}
}

// Access returns how clients reach the servers that run now.
func (c *Cluster) Access() Access {
	a := c.access
	for _, s := range c.Servers {
		if s.cmd != nil {
			a.PIDs = append(a.PIDs, s.PID())
		}
	}
	return a
}

// Disk is how many bytes the servers' files take.
func (c *Cluster) Disk() (int64, error) {
	var sum int64
	for _, s := range c.Servers {
		err := filepath.WalkDir(s.Dir, func(_ string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += stat.Blocks * blockBytes // What is reserved but never written takes no room.
			}
			return nil
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("measure disk of %s: %w", s.Name, err)
		}
	}
	return sum, nil
}

// Profile makes our servers collect CPU profiles until the answered function is called.
func (c *Cluster) Profile(name string) (stop func() error, err error) {
	each := func(command string) error {
		var errs []error
		for _, s := range c.Servers {
			errs = append(errs, s.tell("%s %s-%s", command, strings.NewReplacer(" ", "-", "/", "-").Replace(name), s.Name))
		}
		return errors.Join(errs...)
	}
	return func() error { return each("stop") }, each("start")
}

func (c *Cluster) prepareKonsul(o Options, keys pki, peers []string) error {
	token := filepath.Join(o.Dir, "token")
	if err := os.WriteFile(token, []byte(Token), 0o600); err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	var members []Member
	for i := range servers {
		members = append(members, Member{ID: fmt.Sprintf("server-%d", i+1), Raft: peers[i], Address: c.access.Addresses[i]})
	}
	for i, m := range members {
		dir := filepath.Join(o.Dir, m.ID)
		err := c.addSelf(o, dir, m.ID, "serve", ServeSpec{
			Own: i, Members: members, DataDir: filepath.Join(dir, "data"), TokenFile: token, Credentials: keys.registry, Profiles: o.Profiles,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// prepareLimit lays out one server behind three addresses, as many connections as to a cluster.
func (c *Cluster) prepareLimit(o Options, keys pki) error {
	spec := LimitSpec{Addresses: c.access.Addresses}
	if !o.Plaintext {
		spec.Credentials = &keys.registry
	}
	return c.addSelf(o, filepath.Join(o.Dir, "limit"), "limit", "limit", spec)
}

// addSelf adds a server that is this program with another command.
func (c *Cluster) addSelf(o Options, dir, name, command string, spec any) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode %s: %w", command, err)
	}
	c.Servers = append(c.Servers, &Process{Name: name, Dir: dir, path: o.Self, args: []string{command, string(text)}})
	return nil
}

// prepareEtcd lays out etcd with its defaults; with TLS, mutual everywhere, as ours is. It gets a
// port of its own for HTTP: sharing one would carry gRPC over Go's HTTP server, at twice the cost
// with TLS.
func (c *Cluster) prepareEtcd(o Options, keys pki, peers, others []string) {
	scheme := "https://"
	if o.Plaintext {
		scheme = "http://"
	}
	var initial []string
	for i := range servers {
		initial = append(initial, fmt.Sprintf("etcd-%d=%s%s", i+1, scheme, peers[i]))
	}
	for i := range servers {
		name := fmt.Sprintf("etcd-%d", i+1)
		dir := filepath.Join(o.Dir, name)
		client, peer := scheme+c.access.Addresses[i], scheme+peers[i]
		args := []string{
			"--name", name, "--data-dir", filepath.Join(dir, "data"), "--log-level", "error", "--quota-backend-bytes", "8589934592",
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-client-http-urls", scheme + others[i],
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(initial, ","),
		}
		if !o.Plaintext {
			r := keys.registry
			args = append(args, "--client-cert-auth", "--cert-file", r.Chain, "--key-file", r.Key, "--trusted-ca-file", r.Roots,
				"--peer-client-cert-auth", "--peer-cert-file", r.Chain, "--peer-key-file", r.Key, "--peer-trusted-ca-file", r.Roots)
		}
		c.Servers = append(c.Servers, &Process{Name: name, Dir: dir, path: o.EtcdPath, args: args})
	}
}
