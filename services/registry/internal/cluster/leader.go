package cluster

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"konsul.dev/pkg/fault"
	registryv1 "konsul.dev/proto/gen/konsul/registry/v1"
	"konsul.dev/services/registry/internal/member"
	"konsul.dev/services/registry/internal/raftnode"
)

// changeTimeout bounds one change of membership, the questions before it included.
const changeTimeout = 5 * time.Second

// Reasons of refused changes.
const (
	// ReasonRemoved says that an operator removed a server with the disk it has.
	ReasonRemoved = "SERVER_REMOVED"
	// ReasonForeignState says that a server's data is not of this cluster.
	ReasonForeignState = "FOREIGN_STATE"
	// ReasonDuplicateID says that a server with that id is alive elsewhere.
	ReasonDuplicateID = "DUPLICATE_SERVER_ID"
	// ReasonDuplicateAddress says that another server is alive at a Raft address.
	ReasonDuplicateAddress = "DUPLICATE_RAFT_ADDRESS"
	// ReasonNoMember says that a server that is no member spoke as one.
	ReasonNoMember = "NOT_A_MEMBER"
	// ReasonAlreadyMember says that a server is a member already.
	ReasonAlreadyMember = "ALREADY_A_MEMBER"
	// ReasonWouldLoseQuorum says that without a server the others would be no majority that works.
	ReasonWouldLoseQuorum = "WOULD_LOSE_QUORUM"
	// ReasonServerTooOld says that a server does not understand what the others may write.
	ReasonServerTooOld = "SERVER_TOO_OLD"
)

// Join makes a server that asks for it a member without a vote. Leader only.
func (c *Cluster) Join(ctx context.Context, req *registryv1.JoinRequest) (*registryv1.JoinResponse, error) {
	c.change.Lock()
	defer c.change.Unlock()
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	m := req.GetMember()
	if err := c.Node.CheckLeader(); err != nil {
		return nil, err
	}
	row := c.Rows.Server(m.GetId())
	if row.GetRemoved() && row.GetIncarnation() == m.GetIncarnation() {
		return nil, fault.New(fault.FailedPrecondition, ReasonRemoved, "an operator removed %s", m.GetId()).
			WithRemedy("take it back with `konsulctl operator raft add-peer " + m.GetAddress() + "`, or start it with an empty data folder")
	}
	if err := c.check(ctx, m, req.GetFresh(), req.GetGeneration()); err != nil {
		return nil, err
	}
	if err := c.take(ctx, m, req.GetFresh()); err != nil {
		return nil, err
	}
	return &registryv1.JoinResponse{Generation: c.Node.Disk().Generation, Members: c.known(m)}, nil
}

// Founding returns the command that records the servers this one founded the cluster with, nil when
// they all have rows: what they understand is known before any of them says so again.
func (c *Cluster) Founding() (*registryv1.Command, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all *registryv1.Command
	for _, m := range c.met {
		if c.Rows.Server(m.GetId()) != nil {
			continue
		}
		cmd, err := member.Record(m, c.Datacenter)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = cmd
			continue
		}
		all.Operations = append(all.Operations, cmd.GetOperations()...)
	}
	return all, nil
}

// known returns the rows of all members, and the leader's own even when it is not written yet.
func (c *Cluster) known(newcomer *registryv1.Member) []*registryv1.Member {
	out := []*registryv1.Member{c.Own, newcomer}
	for _, row := range c.Rows.Servers() {
		if row.GetId() != c.Own.GetId() && row.GetId() != newcomer.GetId() && !row.GetRemoved() {
			out = append(out, row)
		}
	}
	return out
}

// check refuses a server whose data is not of this cluster, or whose id belongs to one that lives.
func (c *Cluster) check(ctx context.Context, m *registryv1.Member, fresh bool, generation uint64) error {
	if m.GetId() == "" || m.GetRaftAddress() == "" || m.GetAddress() == "" || m.GetIncarnation() == "" {
		return fault.Invalid("member", "lacks its id, its disk or an address")
	}
	row := c.Rows.Server(m.GetId())
	same := row.GetIncarnation() == m.GetIncarnation() && row != nil
	remedy := "keep a copy of its data folder, then start it with an empty one"
	if !fresh && !same {
		return fault.New(fault.FailedPrecondition, ReasonForeignState, "%s has data that is not of this cluster", m.GetId()).WithRemedy(remedy)
	}
	if !fresh && generation < c.Node.Disk().Generation {
		return fault.New(fault.FailedPrecondition, ReasonSuperseded, "the cluster was recovered from a lost quorum without %s", m.GetId()).WithRemedy(remedy)
	}
	if oldest := c.oldest(); m.GetCommandVersion() < oldest {
		return fault.New(fault.FailedPrecondition, ReasonServerTooOld, "%s understands commands up to version %d, the members up to %d", m.GetId(), m.GetCommandVersion(), oldest).
			WithRemedy("give it the program of the others")
	}
	if !same && (m.GetId() == c.Own.GetId() || row != nil && row.GetAddress() != m.GetAddress() && c.lives(ctx, row)) {
		// Its row is that of another disk, at another address, which is not gone.
		return elsewhere(m.GetId())
	}
	for _, s := range c.Node.Servers() {
		if s.ID != m.GetId() && s.Address == m.GetRaftAddress() && (s.ID == c.Own.GetId() || c.lives(ctx, c.Rows.Server(s.ID))) {
			return fault.New(fault.AlreadyExists, ReasonDuplicateAddress, "%s is alive at %s", s.ID, s.Address).
				WithField("registry.raft_advertise").WithRemedy("give every server an address of its own")
		}
	}
	return nil
}

func elsewhere(id string) error {
	return fault.New(fault.AlreadyExists, ReasonDuplicateID, "a server %s is alive elsewhere", id).
		WithField("registry.id").WithRemedy("give every server an id and a data folder of its own")
}

// lives reports whether the server of a row still runs on the disk it had.
func (c *Cluster) lives(ctx context.Context, row *registryv1.Member) bool {
	if row.GetAddress() == "" {
		return false
	}
	answer, err := c.greetOne(ctx, row.GetAddress())
	return err == nil && answer.GetSelf().GetIncarnation() == row.GetIncarnation()
}

// take makes a checked server a member. One whose disk is empty must be none before: whatever it
// acknowledged is gone, so it must not be counted on.
func (c *Cluster) take(ctx context.Context, m *registryv1.Member, fresh bool) error {
	for _, s := range c.Node.Servers() {
		replaced := s.ID != m.GetId() && s.Address == m.GetRaftAddress()
		if replaced || fresh && s.ID == m.GetId() {
			c.Log.Info("removing a server that was replaced", "server", s.ID, "raft_address", s.Address)
			if err := c.Node.Remove(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	if err := c.record(ctx, m); err != nil {
		return err
	}
	c.Log.Info("adding a server without a vote", "server", m.GetId(), "raft_address", m.GetRaftAddress())
	return c.Node.Add(ctx, m.GetId(), m.GetRaftAddress())
}

func (c *Cluster) record(ctx context.Context, m *registryv1.Member) error {
	cmd, err := member.Record(m, c.Datacenter)
	if err != nil {
		return err
	}
	_, err = c.Propose(ctx, cmd)
	return err
}

// Announce records a member's row, and gives it the Raft address it says. Leader only.
func (c *Cluster) Announce(ctx context.Context, m *registryv1.Member) error {
	c.change.Lock()
	defer c.change.Unlock()
	current, ok := c.member(m.GetId())
	if !ok {
		return fault.New(fault.FailedPrecondition, ReasonNoMember, "%s is no member of this cluster", m.GetId())
	}
	row := c.Rows.Server(m.GetId())
	if row != nil && row.GetIncarnation() != m.GetIncarnation() && row.GetAddress() != m.GetAddress() {
		if err := c.check(ctx, m, true, 0); err != nil {
			return err
		}
	}
	if row != nil && c.clone(ctx, m, row) {
		return elsewhere(m.GetId())
	}
	if err := c.record(ctx, m); err != nil {
		return err
	}
	if current.Address == m.GetRaftAddress() {
		return nil
	}
	c.Log.Info("a server has moved", "server", m.GetId(), "from", current.Address, "raft_address", m.GetRaftAddress())
	return c.Node.Add(ctx, m.GetId(), m.GetRaftAddress())
}

func (c *Cluster) member(id string) (raftnode.Server, bool) {
	servers := c.Node.Servers()
	i := slices.IndexFunc(servers, func(s raftnode.Server) bool { return s.ID == id })
	if i < 0 {
		return raftnode.Server{}, false
	}
	return servers[i], true
}

// Add makes the server that serves gRPC at an address a member without a vote, a removed one too.
// Leader only.
func (c *Cluster) Add(ctx context.Context, address, id string) (*registryv1.Member, error) {
	c.change.Lock()
	defer c.change.Unlock()
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	greeting, err := c.greetOne(ctx, address)
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, ReasonNoAnswer, "no registry of this datacenter answers at %q: %v", address, err).
			WithField("address").WithRemedy("start the server first; give its gRPC address").Wrap(err)
	}
	m := greeting.GetSelf()
	if id != "" && m.GetId() != id {
		return nil, fault.New(fault.FailedPrecondition, ReasonUnexpectedID, "the server at %s is %s", address, m.GetId()).WithField("id")
	}
	if s, ok := c.member(m.GetId()); ok && s.Address == m.GetRaftAddress() && !greeting.GetFresh() {
		return nil, fault.New(fault.AlreadyExists, ReasonAlreadyMember, "%s is a member already", m.GetId()).WithField("address")
	}
	if err := c.check(ctx, m, greeting.GetFresh(), greeting.GetGeneration()); err != nil {
		return nil, err
	}
	if err := c.take(ctx, m, greeting.GetFresh()); err != nil {
		return nil, err
	}
	conn, err := c.Peers.Address(address)
	if err != nil {
		return nil, err
	}
	_, err = registryv1.NewMemberServiceClient(conn).Admit(ctx, &registryv1.AdmitRequest{Generation: c.Node.Disk().Generation, Members: c.known(m)})
	return m, err
}

// Reasons of servers that cannot be added.
const (
	// ReasonNoAnswer says that no server of the datacenter's registry answers at an address.
	ReasonNoAnswer = "NO_SERVER_THERE"
	// ReasonUnexpectedID says that another server than the one named answers at an address.
	ReasonUnexpectedID = "UNEXPECTED_SERVER"
)

// Remove takes a server out of the cluster, and sees to it that it does not come back with the disk
// it has. Removing the leader makes another one lead first: then it answers NO_LEADER, to be
// repeated there.
func (c *Cluster) Remove(ctx context.Context, id string) error {
	c.change.Lock()
	defer c.change.Unlock()
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := c.Node.CheckLeader(); err != nil {
		return err
	}
	target, ok := c.member(id)
	if !ok {
		return fault.New(fault.NotFound, raftnode.ReasonUnknownServer, "there is no server %q in this cluster", id).
			WithField("id").WithRemedy("see `konsulctl operator raft list-peers`")
	}
	if target.Voter {
		if err := c.spare(ctx, id); err != nil {
			return err
		}
	}
	if id == c.Own.GetId() {
		if err := c.Node.Transfer(ctx, ""); err != nil {
			return err
		}
		return fault.New(fault.Unavailable, fault.ReasonNoLeader, "%s has handed its leadership over", id).WithRetryAfter(100 * time.Millisecond)
	}
	mark := proto.CloneOf(c.Rows.Server(id))
	if mark == nil {
		mark = &registryv1.Member{Id: id, RaftAddress: target.Address}
	}
	mark.Removed = true
	if err := c.record(ctx, mark); err != nil {
		return err
	}
	return c.Node.Remove(ctx, id)
}

// spare refuses to remove a voter when those that answer would be no majority of the rest.
func (c *Cluster) spare(ctx context.Context, id string) error {
	rest, silent := 0, []string{}
	for _, s := range c.Node.Servers() {
		if !s.Voter || s.ID == id {
			continue
		}
		rest++
		if _, err := c.Ask(ctx, s.ID); err != nil {
			silent = append(silent, s.ID)
		}
	}
	if rest-len(silent) > rest/2 {
		return nil
	}
	f := fault.New(fault.FailedPrecondition, ReasonWouldLoseQuorum, "without %s %d of %d voters would answer", id, rest-len(silent), rest).WithField("id")
	if rest == 0 {
		return f.WithRemedy("add another server first")
	}
	return f.WithRemedy("bring back " + strings.Join(silent, ", ") + " first, or remove those")
}

// Transfer makes another server the leader and returns which. Leader only.
func (c *Cluster) Transfer(ctx context.Context, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if id == c.Own.GetId() {
		return id, c.Node.CheckLeader()
	}
	if err := c.Node.Transfer(ctx, id); err != nil {
		return "", err
	}
	for ctx.Err() == nil {
		if leader := c.Node.LeaderID(); leader != "" && leader != c.Own.GetId() {
			return leader, nil
		}
		wait(ctx, quickly)
	}
	return "", fault.New(fault.Unavailable, fault.ReasonNoLeader, "nobody leads yet")
}

// oldest returns the highest command version that every member understands.
func (c *Cluster) oldest() uint32 {
	oldest := c.Own.GetCommandVersion()
	for _, s := range c.Node.Servers() {
		if row := c.Rows.Server(s.ID); row != nil {
			oldest = min(oldest, row.GetCommandVersion())
		}
	}
	return oldest
}
