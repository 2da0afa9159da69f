// Package serfpool is the edge to Serf: one encrypted pool of all datacenters' wan-gossip members.
//
// It opens the listener, keeps the member list current, joins and pings on request, and leaves. Who
// may be a member is decided by its caller. A Pool is safe for concurrent use.
package serfpool

import (
	"context"
	"errors"
	"fmt"
	"log" //nolint:depguard // the type the libraries take; it writes to slog
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"konsul.dev/services/wan-gossip/internal/members"
)

// Timing is how fast the pool notices things.
type Timing struct {
	// ProbeInterval is how often each member checks another one; ProbeTimeout how long it waits.
	ProbeInterval, ProbeTimeout time.Duration
	// SuspicionMult times ProbeInterval is how long a silent member may defend itself; at most
	// SuspicionMaxMult times that while nobody confirms the suspicion.
	SuspicionMult, SuspicionMaxMult int
	GossipInterval                  time.Duration
	PushPullInterval                time.Duration
	// ReconnectInterval is how often a failed member is tried; after ReconnectTimeout it is
	// forgotten.
	ReconnectInterval, ReconnectTimeout time.Duration
	// TombstoneTimeout is how long a member that left is remembered.
	TombstoneTimeout time.Duration
	// StreamTimeout bounds one exchange over TCP.
	StreamTimeout time.Duration
}

// Config is what a pool is made of.
type Config struct {
	Self members.Self
	// BindIP and BindPort are bound over TCP and UDP; port 0 takes any.
	BindIP   string
	BindPort int
	// AdvertiseIP and AdvertisePort are what others use; empty and zero: as bound.
	AdvertiseIP   string
	AdvertisePort int
	// Keys encrypt gossip, the first one is used for sending. Never empty.
	Keys [][]byte
	// Admit returns nil for a member that may be in the pool; it gets the members known so far.
	Admit  func(candidate members.Member, known []members.Member) *members.Refusal
	Timing Timing
	Limits Limits
	// Metrics count what is refused.
	Metrics *Metrics
	Log     *slog.Logger
}

// eventBuffer is room for events between Serf, which must not block, and the loop that empties it.
const eventBuffer = 256

// Pool is this member's view of the pool.
type Pool struct {
	cfg    Config
	serf   *serf.Serf
	ring   *memberlist.Keyring
	events chan serf.Event
	// known is what Admit sees: Serf calls it with locks held under which its own list cannot be
	// read.
	known atomic.Pointer[[]members.Member]
	// own is this member's address, heldAt another one at which somebody said it is; empty: nobody
	// has.
	own, heldAt atomic.Value
	// refused is the last refusal: memberlist keeps only an error's text, Join finds the error
	// again.
	refused atomic.Pointer[members.Refusal]

	keys sync.Mutex // serialises SetKeys
}

// Open binds the listener. Nobody is joined yet. Call Run for the member list to move.
func Open(cfg Config) (*Pool, error) {
	if len(cfg.Keys) == 0 {
		return nil, errors.New("no gossip key: gossip is never sent in the clear")
	}
	ring, err := memberlist.NewKeyring(cfg.Keys, cfg.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("make gossip keyring: %w", err)
	}
	p := &Pool{cfg: cfg, ring: ring, events: make(chan serf.Event, eventBuffer)}
	p.known.Store(&[]members.Member{})
	logger := stdLogger(cfg.Log, cfg.Metrics.warnings.Inc)
	sockets, err := listen(cfg.BindIP, cfg.BindPort, cfg.Limits, cfg.Metrics, logger)
	if err != nil {
		return nil, fmt.Errorf("open gossip on %s: %w", net.JoinHostPort(cfg.BindIP, strconv.Itoa(cfg.BindPort)), err)
	}
	s, err := serf.Create(p.serfConfig(sockets, logger))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open gossip: %w", err), sockets.Shutdown())
	}
	p.serf = s
	p.own.Store(p.Addr())
	all := p.list()
	p.known.Store(&all)
	return p, nil
}

func (p *Pool) serfConfig(sockets *transport, logger *log.Logger) *serf.Config {
	t := p.cfg.Timing
	wan := memberlist.DefaultWANConfig()
	wan.Transport = sockets
	wan.BindAddr, wan.BindPort = p.cfg.BindIP, sockets.GetAutoBindPort()
	wan.AdvertiseAddr, wan.AdvertisePort = p.cfg.AdvertiseIP, p.cfg.AdvertisePort
	if p.cfg.AdvertisePort == 0 {
		wan.AdvertisePort = wan.BindPort
	}
	wan.Keyring = p.ring
	wan.ProbeInterval, wan.ProbeTimeout = t.ProbeInterval, t.ProbeTimeout
	wan.SuspicionMult, wan.SuspicionMaxTimeoutMult = t.SuspicionMult, t.SuspicionMaxMult
	wan.GossipInterval, wan.PushPullInterval = t.GossipInterval, t.PushPullInterval
	wan.TCPTimeout = t.StreamTimeout
	// A member that was killed may come back at another address, as containers do. It hears at once
	// that it is taken for dead, and says where it is; who made it wait would have missed that.
	wan.DeadNodeReclaimTime = time.Millisecond
	// The default stretches probes to eight times their interval on a busy machine: too slow to
	// promise anything.
	wan.AwarenessMaxMultiplier = 3
	wan.Logger, wan.LogOutput = logger, nil

	cfg := serf.DefaultConfig()
	cfg.NodeName, cfg.Tags = p.cfg.Self.Name, p.cfg.Self.Tags()
	cfg.MemberlistConfig = wan
	cfg.EventCh = p.events
	cfg.Logger, cfg.LogOutput = logger, nil
	cfg.Merge = merger{p}
	cfg.ReconnectInterval, cfg.ReconnectTimeout = t.ReconnectInterval, t.ReconnectTimeout
	cfg.TombstoneTimeout = t.TombstoneTimeout
	cfg.BroadcastTimeout = leaveBroadcast
	cfg.LeavePropagateDelay = t.GossipInterval * 3
	// Two members of one name are an operator's error to see and mend; neither should vote the
	// other out of its datacenter.
	cfg.EnableNameConflictResolution = false
	// Round trips are measured directly.
	cfg.DisableCoordinates = true
	return cfg
}

// leaveBroadcast is how long each of the two steps of a leave waits for somebody to hear it.
const leaveBroadcast = 2 * time.Second

// Run keeps the member list current and calls changed after each change, until ctx ends.
func (p *Pool) Run(ctx context.Context, changed func([]members.Member)) error {
	p.refresh(changed)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.serf.ShutdownCh():
			return nil
		case event := <-p.events:
			if _, ok := event.(serf.MemberEvent); ok {
				p.refresh(changed)
			}
		}
	}
}

func (p *Pool) refresh(changed func([]members.Member)) {
	all := p.list()
	p.known.Store(&all)
	changed(all)
}

// Members returns the members as Run last saw them. The caller must not change the slice.
func (p *Pool) Members() []members.Member { return *p.known.Load() }

func (p *Pool) list() []members.Member {
	raw := p.serf.Members()
	all := make([]members.Member, 0, len(raw))
	for i := range raw {
		all = append(all, convert(&raw[i]))
	}
	return all
}

func convert(m *serf.Member) members.Member {
	address := net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port)))
	return members.Parse(m.Name, address, members.Status(m.Status.String()), m.Tags)
}

// Addr returns the address this member advertises.
func (p *Pool) Addr() string {
	local := p.serf.LocalMember()
	return convert(&local).Address
}

// Join exchanges members with whoever listens at ip:port. A *members.Refusal in the error's chain
// says that one of them may not be in a pool with this member, members.ErrOldAddress that somebody
// knows this member at another address: the exchange has to be repeated until it is known at its
// own.
func (p *Pool) Join(address string) error {
	p.heldAt.Store("")
	if _, err := p.serf.Join([]string{address}, true); err != nil {
		if refusal := p.refusal(address, err); refusal != nil {
			return fmt.Errorf("join gossip at %s: %w", address, refusal)
		}
		return errors.New(oneLine(err))
	}
	if old := p.heldAt.Load(); old != "" {
		return fmt.Errorf("%w, %s", members.ErrOldAddress, old)
	}
	return nil
}

// oneLine takes the text of the only error out of memberlist's list of errors, which spans lines
// and wraps nothing.
func oneLine(err error) string {
	if _, text, ok := strings.Cut(err.Error(), "* "); ok {
		return strings.TrimSpace(text)
	}
	return err.Error()
}

// refusal returns why a join was refused; nil when it failed for another reason.
func (p *Pool) refusal(address string, err error) *members.Refusal {
	text := err.Error()
	if last := p.refused.Load(); last != nil && strings.Contains(text, last.Error()) {
		return last
	}
	if strings.Contains(text, "installed keys") || strings.Contains(text, "encrypt") {
		return &members.Refusal{
			Reason: members.ReasonEncryption,
			Text:   address + " gossips with another key: " + oneLine(err),
			Remedy: "bring both datacenters into one federation, so that they get its gossip key from their ca",
		}
	}
	return nil
}

// Ping returns how long a member took to answer one packet.
func (p *Pool) Ping(m members.Member) (time.Duration, error) {
	addr, err := net.ResolveUDPAddr("udp", m.Address) // an IP: nothing is looked up
	if err != nil {
		return 0, fmt.Errorf("address of %s: %w", m.Name, err)
	}
	// The library starts its own watch after the packet has left: on a fast path the answer is
	// there before.
	start := time.Now()
	if _, err := p.serf.Memberlist().Ping(m.Name, addr); err != nil {
		return 0, fmt.Errorf("ping %s: %w", m.Name, err)
	}
	return time.Since(start), nil
}

// SetKeys makes the first key the one to send with, and accepts exactly the given ones.
func (p *Pool) SetKeys(keys [][]byte) error {
	p.keys.Lock()
	defer p.keys.Unlock()
	wanted := map[string]bool{}
	for _, key := range keys {
		wanted[string(key)] = true
		if err := p.ring.AddKey(key); err != nil {
			return fmt.Errorf("add gossip key: %w", err)
		}
	}
	if err := p.ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("use gossip key: %w", err)
	}
	for _, key := range p.ring.GetKeys() {
		if wanted[string(key)] {
			continue
		}
		if err := p.ring.RemoveKey(key); err != nil {
			return fmt.Errorf("remove gossip key: %w", err)
		}
	}
	return nil
}

// Leave tells the others that this member goes, until ctx ends.
func (p *Pool) Leave(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- p.serf.Leave() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("leave gossip: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave gossip: %w", context.Cause(ctx))
	}
}

// Shutdown closes the listener. Without a Leave the others will see a failure.
func (p *Pool) Shutdown() error {
	if err := p.serf.Shutdown(); err != nil {
		return fmt.Errorf("shut gossip down: %w", err)
	}
	return nil
}

// merger adapts Admit to Serf, which asks for whole pools at a join and for single members in
// between.
type merger struct{ pool *Pool }

// NotifyMerge implements serf.MergeDelegate.
func (m merger) NotifyMerge(candidates []*serf.Member) error {
	known := m.pool.Members()
	for _, candidate := range candidates {
		own, _ := m.pool.own.Load().(string)
		if c := convert(candidate); c.Name == m.pool.cfg.Self.Name && c.Status != members.Left && own != "" && c.Address != own {
			m.pool.heldAt.Store(c.Address)
		}
		if refusal := m.pool.cfg.Admit(convert(candidate), known); refusal != nil {
			m.pool.refused.Store(refusal)
			return refusal
		}
	}
	return nil
}
