package wangossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"konsul.dev/pkg/config"
	"konsul.dev/pkg/fault"
	"konsul.dev/pkg/identity"
	"konsul.dev/pkg/obs"
	"konsul.dev/services/wan-gossip/internal/members"
	"konsul.dev/services/wan-gossip/internal/peerfile"
	"konsul.dev/services/wan-gossip/internal/serfpool"
)

// ReasonUnresolved is the reason of a pool that waits for a name of its own to appear in DNS.
const ReasonUnresolved = "GOSSIP_ADDRESS_UNRESOLVED"

// lookupTimeout bounds one look into DNS.
const lookupTimeout = 3 * time.Second

// poolConfig returns what the pool is made of, but for its keys.
func (s *Service) poolConfig(ctx context.Context) (serfpool.Config, error) {
	wan, d := s.cfg.Server.WAN, s.cfg.WANGossip.Detection
	bindIP, bindPort, err := s.resolve(ctx, "server.wan.bind_addr", wan.BindAddr)
	if err != nil {
		return serfpool.Config{}, err
	}
	var advertiseIP string
	var advertisePort int
	if wan.AdvertiseAddr != "" {
		if advertiseIP, advertisePort, err = s.resolve(ctx, "server.wan.advertise_addr", wan.AdvertiseAddr); err != nil {
			return serfpool.Config{}, err
		}
	}
	return serfpool.Config{
		Self: s.self, BindIP: bindIP, BindPort: bindPort, AdvertiseIP: advertiseIP, AdvertisePort: advertisePort,
		Admit: s.gate.admit, Metrics: s.metrics, Log: s.deps.Telemetry.Log,
		Limits: serfpool.Limits{
			Streams: s.cfg.WANGossip.MaxStreams, StreamsPerSource: s.cfg.WANGossip.MaxStreamsPerSource,
			StreamBytes: s.cfg.WANGossip.MaxStreamBytes,
		},
		Timing: serfpool.Timing{
			ProbeInterval: d.ProbeInterval, ProbeTimeout: d.ProbeTimeout,
			SuspicionMult: d.SuspicionMult, SuspicionMaxMult: d.SuspicionMaxMult,
			GossipInterval: d.GossipInterval, PushPullInterval: d.PushPullInterval,
			ReconnectInterval: d.ReconnectInterval, ReconnectTimeout: d.ReconnectTimeout,
			TombstoneTimeout: d.TombstoneTimeout, StreamTimeout: d.StreamTimeout,
		},
	}, nil
}

// resolve returns the IP and port of an own address; Unavailable while DNS does not know its name.
func (s *Service) resolve(ctx context.Context, field, address string) (ip string, port int, err error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fault.Invalid(field, "%q is no address", address)
	}
	if port, err = strconv.Atoi(portText); err != nil {
		return "", 0, fault.Invalid(field, "%q is no port", portText)
	}
	if host == "" {
		return net.IPv4zero.String(), port, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := s.deps.Lookup(ctx, host)
	if err != nil || len(ips) == 0 {
		return "", 0, fault.New(fault.Unavailable, ReasonUnresolved, "%q has no IP address", host).WithField(field).
			WithRemedy("write an IP address, or a name that DNS knows on this machine").Wrap(err)
	}
	return preferV4(ips), port, nil
}

func preferV4(ips []string) string {
	for _, ip := range ips {
		if parsed := net.ParseIP(ip); parsed != nil && parsed.To4() != nil {
			return ip
		}
	}
	return ips[0]
}

// gateways returns where other datacenters reach this one's gateways. The host stays a name if it
// was written as one.
func gateways(cfg Config) []string {
	if len(cfg.WANGossip.GatewayAddresses) > 0 {
		return slices.Clone(cfg.WANGossip.GatewayAddresses)
	}
	address := cfg.Server.WAN.AdvertiseAddr
	if address == "" {
		address = cfg.Server.WAN.BindAddr
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil // refused by Validate
	}
	return []string{net.JoinHostPort(host, strconv.Itoa(config.PortGateway))}
}

// datacenterID returns the immutable id of the datacenter. The first start learns it: it is derived
// from the datacenter secret, here or by the ca, so that every member of a datacenter has the same
// one, also after the loss of a disk, and another datacenter of the same name another. Then it is
// kept, so that a new secret does not change it.
func datacenterID(path string, learn func() (string, error)) (string, error) {
	kept, err := os.ReadFile(path)
	if err == nil {
		id, err := uuid.Parse(strings.TrimSpace(string(kept)))
		if err != nil {
			return "", fault.New(fault.DataLoss, "DATACENTER_ID_UNREADABLE", "%q holds no UUID", path).
				WithRemedy("restore it from another member of the datacenter, or remove it to learn the id anew, from server.secret_file or the ca").Wrap(err)
		}
		return id.String(), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read datacenter id: %w", err)
	}
	id, err := learn()
	if err != nil {
		return "", err
	}
	return id, identity.WriteFile(path, []byte(id+"\n"))
}

// peers remembers where others were. It is used by one goroutine at a time.
type peers struct {
	path string
	own  string
	log  *slog.Logger
	last []string
}

func (p *peers) load() []string {
	list, err := peerfile.Load(p.path)
	if err != nil {
		p.log.Warn("known gossip peers cannot be read; relying on configured seeds", obs.KeyError, err)
	}
	return list
}

// remember saves the peers, but not while alone: those of better days are worth more then.
func (p *peers) remember(all []members.Member) {
	var list []string
	alone := true
	for _, m := range all {
		if m.Name == p.own || m.Status == members.Left {
			continue
		}
		alone = alone && !m.Up()
		list = append(list, m.Address)
	}
	slices.Sort(list)
	if alone || slices.Equal(list, p.last) {
		return
	}
	p.last = list
	if err := peerfile.Save(p.path, list); err != nil {
		p.log.Warn("known gossip peers cannot be saved", obs.KeyError, err)
	}
}
